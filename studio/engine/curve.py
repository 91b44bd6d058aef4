"""The loss of a run as a picture: a plain SVG that reads well on light and dark paper.

Not here: the live plots of the page (studio.ui.plots), and where the figures come from (the trainer's log).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

Point = tuple[float, float]
"""(step, loss)"""

WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 74, 18, 34, 52
GREY, BLUE, ORANGE = "#808080", "#3b82c4", "#d9822b"
MOST_POINTS = 1500
WEIGHT = 0.9
"""How much of the smoothed line so far stays in its next value."""


def loss_picture(trained: Sequence[Point], validated: Sequence[Point] = (), *, unit: str = "") -> str:
    """An SVG with the loss of each step, its smoothed line, and the validations as dots.

    unit: of the loss, such as "nats per token"; an objective without a unit has none. Values that are no numbers are
    left out, and an empty run gives empty axes.
    """
    trained, validated = _finite(trained), _finite(validated)
    across = _Scale([step for step, _ in [*trained, *validated]], LEFT, WIDTH - RIGHT, whole=True)
    up = _Scale([loss for _, loss in [*trained, *validated]], HEIGHT - BOTTOM, TOP)
    parts = [*_axes(across, up, f"loss ({unit})" if unit else "loss")]
    if trained:
        parts.append(_line(_thinned(trained), across, up, BLUE, 'stroke-width="1" stroke-opacity="0.4"'))
        parts.append(_line(_thinned(smoothed(trained)), across, up, BLUE, 'stroke-width="2"'))
    if validated:
        parts.append(_line(validated, across, up, ORANGE, 'stroke-width="1" stroke-dasharray="4 4"'))
        parts += [_dot(point, across, up) for point in validated]
    parts += _legend(bool(validated))
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'font-family="sans-serif" font-size="12" fill="{GREY}" role="img">\n'
        f"<title>{_summary(trained, validated)}</title>\n{body}\n</svg>\n"
    )


def smoothed(points: Sequence[Point]) -> list[Point]:
    """The exponential moving average, corrected for its start, so that the first value is the first point."""
    line, average, share = [], 0.0, 0.0
    for step, value in points:
        average = WEIGHT * average + (1 - WEIGHT) * value
        share = WEIGHT * share + (1 - WEIGHT)
        line.append((step, average / share))
    return line


class _Scale:
    """From values to places in the picture, with round numbers to mark."""

    def __init__(self, values: Sequence[float], begin: float, end: float, *, whole: bool = False):
        low, high = (min(values), max(values)) if values else (0.0, 1.0)
        if low == high:
            low, high = low - 0.5, high + 0.5
        self.step = _round_step((high - low) / 6, whole=whole)
        if not whole:  # the loss gets room above and below, up to a round number
            low, high = math.floor(low / self.step) * self.step, math.ceil(high / self.step) * self.step
        self._low, self._high, self._begin, self._end = low, high, begin, end

    def __call__(self, value: float) -> float:
        share = (value - self._low) / (self._high - self._low)
        return round(self._begin + share * (self._end - self._begin), 1)

    def marks(self) -> list[tuple[float, str]]:
        """(place, number) of each mark."""
        first, last = math.ceil(self._low / self.step), math.floor(self._high / self.step + 1e-9)
        return [(self(number * self.step), f"{number * self.step:.6g}") for number in range(first, last + 1)]


def _round_step(rough: float, *, whole: bool) -> float:
    """1, 2 or 5 times a power of ten, at least as large as asked for."""
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    return max(1.0, step) if whole else step


def _axes(across: _Scale, up: _Scale, name: str) -> list[str]:
    floor = HEIGHT - BOTTOM
    parts = [f'<path d="M{LEFT} {TOP}V{floor}H{WIDTH - RIGHT}" fill="none" stroke="{GREY}"/>']
    for place, number in up.marks():
        parts.append(f'<path d="M{LEFT} {place}H{WIDTH - RIGHT}" stroke="{GREY}" stroke-opacity="0.25"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{place + 4}" text-anchor="end">{number}</text>')
    for place, number in across.marks():
        parts.append(f'<path d="M{place} {floor}v5" stroke="{GREY}"/>')
        parts.append(f'<text x="{place}" y="{floor + 20}" text-anchor="middle">{number}</text>')
    parts.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 10}" text-anchor="middle">step</text>')
    middle = (TOP + floor) / 2
    turned = f'x="18" y="{middle}" text-anchor="middle" transform="rotate(-90 18 {middle})"'
    return [*parts, f"<text {turned}>{name}</text>"]


def _legend(with_validation: bool) -> list[str]:
    entries = [("each step", BLUE, 0.4), ("smoothed", BLUE, 1.0), ("validation", ORANGE, 1.0)]
    parts = []
    for number, (name, colour, opacity) in enumerate(entries if with_validation else entries[:2]):
        x = LEFT + 110 * number
        line = f'<path d="M{x} 16h22" stroke="{colour}" stroke-width="2" stroke-opacity="{opacity}"/>'
        parts.append(f'{line}<text x="{x + 28}" y="20">{name}</text>')
    return parts


def _line(points: Sequence[Point], across: _Scale, up: _Scale, colour: str, style: str) -> str:
    places = " ".join(f"{across(step)},{up(loss)}" for step, loss in points)
    return f'<polyline points="{places}" fill="none" stroke="{colour}" stroke-linejoin="round" {style}/>'


def _dot(point: Point, across: _Scale, up: _Scale) -> str:
    return f'<circle cx="{across(point[0])}" cy="{up(point[1])}" r="3.5" fill="{ORANGE}"/>'


def _thinned(points: Sequence[Point]) -> list[Point]:
    """At most about MOST_POINTS: of each stretch the lowest and the highest, so that spikes stay."""
    if len(points) <= MOST_POINTS:
        return list(points)
    size = math.ceil(2 * len(points) / MOST_POINTS)
    stretches = (points[start : start + size] for start in range(0, len(points), size))
    return [point for stretch in stretches for point in sorted({min(stretch, key=_loss), max(stretch, key=_loss)})]


def _loss(point: Point) -> float:
    return point[1]


def _finite(points: Sequence[Point]) -> list[Point]:
    return [point for point in points if math.isfinite(point[1])]


def _summary(trained: Sequence[Point], validated: Sequence[Point]) -> str:
    if not trained:
        return "No step was trained."
    (first, began), (last, ended) = trained[0], smoothed(trained)[-1]
    said = f"Loss from {began:.4g} at step {first:g} to {ended:.4g} at step {last:g}"
    low = f"; lowest validation loss {min(map(_loss, validated)):.4g}" if validated else ""
    return f"{said}{low}."

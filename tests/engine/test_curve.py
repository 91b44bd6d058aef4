"""The loss as a picture."""

import math
import re
from xml.etree import ElementTree

import pytest

from studio.engine.curve import MOST_POINTS, loss_picture, smoothed

SVG = "{http://www.w3.org/2000/svg}"


def texts(picture):
    return [each.text for each in ElementTree.fromstring(picture).iter(f"{SVG}text")]


def lines(picture):
    return [each.get("points").split() for each in ElementTree.fromstring(picture).iter(f"{SVG}polyline")]


def test_the_axes_have_round_numbers_a_name_and_a_unit():
    picture = loss_picture([(step, 2 - step / 100) for step in range(1, 101)], unit="nats per token")
    said = texts(picture)
    assert {"step", "loss (nats per token)", "each step", "smoothed"} <= set(said) and "validation" not in said
    assert {"20", "40", "60", "80", "100", "1.2", "2"} <= set(said)


def test_a_higher_loss_lies_higher_and_a_later_step_further_right():
    (first, last), _ = (line for line in lines(loss_picture([(1, 3.0), (9, 1.0)])))
    (x1, y1), (x2, y2) = (map(float, point.split(",")) for point in (first, last))
    assert x1 < x2 and y1 < y2


def test_every_validation_is_a_dot():
    picture = loss_picture([(1, 2.0), (2, 1.0), (3, 0.5)], [(2, 1.5), (3, 1.25)])
    root = ElementTree.fromstring(picture)
    assert len(list(root.iter(f"{SVG}circle"))) == 2 and "validation" in texts(picture)
    assert "lowest validation loss 1.25" in root.find(f"{SVG}title").text


@pytest.mark.parametrize("points", [[], [(1, math.nan)], [(1, 2.0)], [(1, 0.0), (2, 0.0)]])
def test_a_run_without_a_curve_gives_a_picture_too(points):
    assert "nan" not in loss_picture(points) and texts(loss_picture(points))


def test_a_long_run_stays_small_and_keeps_its_spikes():
    points = [(step, 1.0) for step in range(1, 50_001)]
    points[31_000] = (31_001, 9.0)
    picture = loss_picture(points)
    line, _ = lines(picture)
    assert len(line) <= MOST_POINTS + 2 and len(picture) < 80_000
    highest = min(line, key=lambda point: float(point.split(",")[1]))
    assert re.match(r"48\d\.", highest), "31,001 of 50,000"


def test_the_smoothed_line_starts_at_the_first_value_and_stays_within_them():
    line = smoothed([(step, value) for step, value in enumerate([4.0, 2.0, 2.0, 2.0])])
    values = [value for _, value in line]
    assert values[0] == pytest.approx(4.0) and values == sorted(values, reverse=True) and values[-1] > 2.0

"""A run's view as the small pieces of markup and text that the Train tab shows. Pure; all data is escaped here.

Not here: the chart (studio.ui.live_run), and when anything is shown (studio.ui.tabs.train).
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Mapping

from studio.events import Phase
from studio.hardware import Choice, Hardware
from studio.jobs.monitor import JobView
from studio.ui import run_figures
from studio.ui.texts import table

NOTHING = "–"


def status(view: JobView | None, language: str) -> str:
    """State, progress and the newest figures, with units, as one block whose cells never move."""
    texts = table(language)
    if view is None:
        return f'<p class="quiet">{html.escape(texts["train.no_run"])}</p>'
    cells = "".join(
        _cell(texts[f"train.figure.{name}"], value, name) for name, value in figures(view, language).items()
    )
    state = html.escape(texts[f"train.state.{view.state}"])
    return (
        f'<div class="run" data-state="{view.state}" data-step="{view.step}">'
        f'<div class="run-head"><span class="state state-{view.state}">{state}</span>'
        f'<span class="doing">{html.escape(doing(view, language))}</span></div>'
        f"{_progress(view, texts)}<dl class='figures'>{cells}</dl></div>"
    )


def figures(view: JobView, language: str) -> dict[str, str]:
    """The newest figures by name, formatted, with units; a dash for what is not known."""
    last = view.steps[-1] if view.steps else None
    total = f" / {view.total_steps:,}" if view.total_steps else ""
    return {
        "step": f"{view.step:,}{total}",
        "epoch": f"{last.epoch:.2f}" if last else NOTHING,
        "loss": f"{last.loss:.4f}" if last else NOTHING,
        "learning_rate": f"{last.learning_rate:.2e}" if last else NOTHING,
        "grad_norm": f"{last.grad_norm:.3g}" if last and last.grad_norm is not None else NOTHING,
        "speed": f"{view.tokens_per_s:,.0f} {table(language)['train.unit.tokens_per_s']}"
        if view.tokens_per_s
        else NOTHING,
        "left": duration(view.seconds_left, language) if view.seconds_left is not None else NOTHING,
        "memory": f"{last.memory_gib:.1f} GiB" if last and last.memory_gib is not None else NOTHING,
        "best": _best(view, language),
    }


def doing(view: JobView, language: str) -> str:
    """What a live job does now, how a job ended, or what can be done about it."""
    advice = table(language).get(f"train.advice.{view.state}", "").format(place=view.place)
    if view.state == "queued":
        return advice
    if view.ended is not None and not view.live and (view.ended.message or not advice):
        return view.ended.message
    phase = _phase(view.phase, language) if view.live and view.phase else ""
    return f"{phase}. {advice}".removeprefix(". ") if advice else phase


def duration(seconds: float, language: str) -> str:
    """`45 s`, `3 min 20 s`, `2 h 05 min`."""
    texts = table(language)
    whole = max(0, round(seconds))
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    if hours:
        return f"{hours} {texts['train.unit.h']} {minutes:02d} {texts['train.unit.min']}"
    if minutes:
        return f"{minutes} {texts['train.unit.min']} {rest:02d} {texts['train.unit.s']}"
    return f"{rest} {texts['train.unit.s']}"


def samples(view: JobView | None, language: str) -> str:
    """Answers to each fixed prompt, by step, so that the change reads downwards; above them, a choice of one step."""
    texts = table(language)
    if view is None or not view.samples:
        return f'<p class="quiet">{html.escape(texts["train.no_samples"])}</p>'
    titles = (texts["train.figure.step"], texts["train.answer"])
    head = "<tr>" + "".join(f"<th scope='col'>{html.escape(title)}</th>" for title in titles) + "</tr>"
    blocks = [_step_choice(sorted({each.step for each in view.samples}), texts)]
    for prompt in dict.fromkeys(each.prompt for each in view.samples):
        answers = sorted((each for each in view.samples if each.prompt == prompt), key=lambda each: each.step)
        rows = "".join(
            f"<tr data-step='{each.step}'><td>{each.step:,}</td><td>{html.escape(each.answer)}</td></tr>"
            for each in answers
        )
        blocks.append(f"<table class='samples'><caption>{html.escape(prompt)}</caption>{head}{rows}</table>")
    return "".join(blocks)


def _step_choice(steps: list[int], texts: Mapping[str, str]) -> str:
    """All steps, or one of them, and the way to the next; studio/ui/samples.js makes it work."""
    if len(steps) < 2:
        return ""
    every, label, *ways = (
        html.escape(texts[f"train.{key}"], quote=True) for key in ("every_step", "at_which_step", "earlier", "later")
    )
    choices = "".join(
        f"<option value='{step}'>{html.escape(texts['train.figure.step'])} {step:,}</option>" for step in steps
    )
    back, on = (
        f"<button type='button' data-by='{by}' aria-label='{way}' title='{way}'>{sign}</button>"
        for by, way, sign in ((-1, ways[0], "‹"), (1, ways[1], "›"))
    )
    return (
        f"<div class='samples-bar'>{back}<select aria-label='{label}'>"
        f"<option value=''>{every}</option>{choices}</select>{on}</div>"
    )


def notes(view: JobView | None, language: str) -> str:
    """What the user should know: notes of the run, rows that were skipped, lines that could not be read."""
    if view is None:
        return ""
    lines = [*_steps(view, language), *view.notes]
    if view.plan and view.plan.skipped_rows:
        lines.append(table(language)["train.skipped_rows"].format(count=view.plan.skipped_rows))
    if view.skipped_lines:
        lines.append(table(language)["train.skipped_lines"].format(count=view.skipped_lines))
    return paragraphs(lines)


def _steps(view: JobView, language: str) -> Iterator[str]:
    """How the run takes its steps, and what the preflight measured."""
    texts = table(language)
    if view.plan and view.plan.path == "fast":
        yield texts["train.path.fast"]
        if view.plan.kernels:
            yield texts["train.path.kernels"].format(kernels=", ".join(view.plan.kernels))
    elif view.plan and view.plan.path_why:
        why = view.plan.path_why
        yield texts["train.path.trl"].format(why=texts.get(f"train.path.why.{why}", why))
    if found := view.preflight:
        known = {"tokens": f"{found.tokens:,}", "seconds": duration(found.seconds, language)}
        memory = {"peak": f"{found.peak_gib:.1f} GiB", "left": f"{found.free_gib:.1f} GiB"}
        in_all = duration(found.seconds_in_all, language) if found.seconds_in_all else NOTHING
        yield texts["train.preflight"].format(**known, **memory, in_all=in_all)


def paragraphs(lines: Iterable[str]) -> str:
    """Lines of text as markup, escaped."""
    return "".join(f'<p class="note">{html.escape(line)}</p>' for line in lines)


def machine(hardware: Hardware, chosen: Mapping[str, Choice], language: str) -> str:
    """What this machine is, and what each "auto" became on it, with the reason."""
    texts = table(language)
    reasons: dict[Choice, list[str]] = {}
    for field, choice in chosen.items():
        reasons.setdefault(choice, []).append(texts[f"spec.{field}.label"])
    rows = "".join(
        f"<li>{html.escape(texts['train.and'].join(labels))}: <b>{html.escape(choice.value)}</b>"
        f" ({html.escape(texts.get(f'train.why.{choice.why}', choice.why))})</li>"
        for choice, labels in reasons.items()
    )
    return f"<p>{html.escape(_hardware(hardware, texts))}</p><ul class='choices'>{rows}</ul>"


def _hardware(hardware: Hardware, texts: Mapping[str, str]) -> str:
    gpu = f"{hardware.gpu} ({hardware.gpu_memory_gib:.0f} GiB)" if hardware.gpu else texts["train.no_gpu"]
    return texts["train.machine"].format(gpu=gpu, cores=hardware.cores, memory=f"{hardware.memory_gib:.0f} GiB")


def choice_label(view: JobView, language: str) -> str:
    """A run in a list: its id and its state."""
    return f"{view.id} · {table(language)[f'train.state.{view.state}']}"


def _cell(label: str, value: str, name: str) -> str:
    return f"<div data-figure='{name}'><dt>{html.escape(label)}</dt><dd>{html.escape(value)}</dd></div>"


def _best(view: JobView, language: str) -> str:
    found = run_figures.best(view)
    if found is None:
        return NOTHING
    step, _, value = found
    return table(language)["train.at_step"].format(value=f"{value:.4f}", step=f"{step:,}")


def _progress(view: JobView, texts: Mapping[str, str]) -> str:
    done, total = view.step, view.total_steps
    if not view.steps and view.phase and view.phase.total:
        done, total = view.phase.done or 0, view.phase.total
    label = html.escape(texts["train.figure.step"])
    if not total:
        waiting = "" if view.live else " value='0'"
        return f"<progress aria-label='{label}' max='1'{waiting}></progress>"
    return f"<progress aria-label='{label}' max='{total}' value='{min(done, total)}'></progress>"


def _phase(phase: Phase, language: str) -> str:
    known = table(language).get(f"train.phase.{phase.name}", phase.name)
    if phase.done is None:
        return known
    of = f" / {phase.total:,}" if phase.total else ""
    return f"{known} {phase.done:,}{of} {phase.unit}".rstrip()

"""The support table of the tuning methods, made by trying each of them on a real model.

    python -m tests.engine.methods.prove --cache FOLDER            # measures what the cache lacks, and shows the table
    python -m tests.engine.methods.prove --cache FOLDER --only vera --again
    python -m tests.engine.methods.prove --cache FOLDER --write    # and writes abilities.json and the README's table

Each measurement is a file in the cache folder, so that a proof can be interrupted and goes on. Not here: how one is
taken (measuring), and what the table rules out in a spec (studio.specs.abilities).
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from studio.home import CHECKOUT
from studio.specs.abilities import TABLE
from tests.engine.methods.measuring import BASES, CLOSE, STEPS, Found, Reloader, Variant, measure

ROUNDED = {"nf4": 5e-2, "int8": 0.2}
"""The same on a quantised base, whose products are in bf16, or round activations to 8 bits: there a change of 1e-5 in
each layer's attention moved the logits of SmolLM2-135M by 0.10 to 0.14."""
README = CHECKOUT / "README.md"
BEGIN, END = "<!-- methods: begin -->", "<!-- methods: end -->"


def _plain(kind: str, **settings: Any) -> Variant:
    own = {name: settings.pop(name) for name in ("model", "bases", "register", "whole", "unmoved") if name in settings}
    return Variant(kind, {"kind": kind, **settings}, **own)


def _lora(name: str, **settings: Any) -> Variant:
    own = {name: settings.pop(name) for name in ("model", "bases") if name in settings}
    return Variant(f"lora, {name}", {"kind": "lora", "rank": 8, "alpha": 16, **settings}, **own)


VARIANTS: tuple[Variant, ...] = (
    _plain("lora"),
    _lora("dora", dora=True),
    _lora("pissa", init="pissa"),
    _lora("olora", init="olora"),
    _lora("loftq", init="loftq", bases=("nf4", "int8")),
    _lora("eva", init="eva", init_rows=4),
    _lora("corda", init="corda", init_rows=4),
    _lora("train_tokens", train_tokens=["<|im_start|>", "<|im_end|>"]),
    _lora("split_fused", split_fused=True, model="gpt2"),
    _lora("lm_head", target_modules=["q_proj", "v_proj", "lm_head"]),
    _plain("adalora", unmoved=0.1),  # layers whose rank is cut to nothing
    _plain("loha"),
    _plain("lokr"),
    _plain("oft"),
    _plain("boft"),
    _plain("vera"),
    _plain("randlora"),
    _plain("vblora"),
    _plain("fourierft"),
    _plain("hra"),
    _plain("miss"),
    _plain("ia3"),
    _plain("adaption_prompt"),
    _plain("bottleneck", register="studio.engine.methods.bottleneck"),
    _plain("prompt_tuning"),
    _plain("multitask_prompt_tuning"),
    _plain("p_tuning"),
    _plain("prefix_tuning"),
    _plain("full", whole=True),
    _plain("freeze"),
    _plain("bitfit", model="qwen2"),
    _plain("ln_tuning"),
    _plain("trainable_tokens"),
    _plain("adamix", unmoved=0.1),
)

_OF_THE_WEIGHTS = "starts out of the base's weights, which a quantised base has rounded"
_PACKED = "works on the weight itself, which a 4-bit base packs"
_BEFORE = "stands before the row, so no weight can hold it"
WHY: Mapping[str, str] = {
    "lora, dora": "8-bit was tried on a CPU, where PEFT fails",
    "lora, pissa": _OF_THE_WEIGHTS,
    "lora, olora": _OF_THE_WEIGHTS,
    "lora, loftq": "for quantised bases",
    "lora, corda": _OF_THE_WEIGHTS,
    "lora, split_fused": "for GPT-2",
    "lora, lm_head": "a head that shares its weights with the embeddings cannot take the adapter alone",
    "loha": _PACKED,
    "lokr": _PACKED,
    "hra": "works on the weight itself, which a quantised base packs or scales",
    "adaption_prompt": "for llama, mistral and GPT-2",
    "bottleneck": "is not linear, so no weight can hold it",
    "prompt_tuning": _BEFORE,
    "multitask_prompt_tuning": _BEFORE + "; each dataset is a task",
    "p_tuning": _BEFORE,
    "prefix_tuning": "is keys and values, which no weight can hold",
    "full": "trains the weights themselves",
    "freeze": "trains the weights themselves",
    "bitfit": "for models with biases",
}
"""In the README, what a mark alone does not say."""


def registered() -> None:
    """Two small sets of sums, in the home that STUDIO_HOME names."""
    from studio.data import registry

    for name, numbers in (("sums", range(1, 5)), ("sums-too", range(5, 8))):
        rows = [{"instruction": f"{a} plus {b}?", "output": f"{a + b}."} for a in numbers for b in numbers]
        path = Path(os.environ["STUDIO_HOME"]) / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(rows), encoding="utf-8")
        registry.add(path, name)


def prove(
    variants: Sequence[Variant],
    models: Mapping[str, Path],
    cache: Path,
    *,
    again: bool = False,
    steps: int = STEPS,
) -> dict[str, dict[str, Found]]:
    """Measure variants on their bases, but for what the cache holds. models: the folder of each model by its name."""
    proven: dict[str, dict[str, Found]] = {}
    cache.mkdir(parents=True, exist_ok=True)
    with Reloader() as reloader:
        for base in BASES:
            for variant in (each for each in variants if base in each.bases):
                kept = cache / f"{variant.name.replace(', ', '-')}.{base}.json"
                if again or not kept.is_file():
                    found = measure(variant, base, models[variant.model], reloader, steps=steps)
                    kept.write_text(json.dumps(asdict(found), indent=1), encoding="utf-8")
                    print(_told(found), flush=True)
                values = json.loads(kept.read_text(encoding="utf-8"))
                proven.setdefault(variant.name, {})[base] = Found(**values)
    return {variant.name: proven[variant.name] for variant in variants}


def row(found: Mapping[str, Found]) -> dict[str, Any]:
    """A variant's entry in abilities.json."""
    plain = found.get("none") or found["nf4"]
    return {
        "nf4": "nf4" in found and _works(found["nf4"], plain),
        "int8": "int8" in found and _works(found["int8"], plain),
        "merge": _within(plain.merge, CLOSE),
        "mixed": _within(plain.mixed, 10 * CLOSE),
        "padding_free": _within(plain.padding_free, CLOSE if "none" in found else ROUNDED["nf4"]),
        "checkpointing": _within(plain.checkpointing, CLOSE),
    }


def _works(found: Found, plain: Found) -> bool:
    """Whether all went well, and began as near to the base as it does in full precision.

    A method that takes a packed weight for a plain one may train without a word, from a model that is none any more.
    """
    return found.fault is None and found.start <= 2 * plain.start + ROUNDED[found.base]


def _within(measured: Any, limit: float) -> bool:
    difference, _reason = measured
    return difference is not None and difference <= limit


def _told(found: Found) -> str:
    measured = {
        name: value[0] if value[0] is not None else value[1]
        for name in ("merge", "mixed", "padding_free", "checkpointing")
        if (value := getattr(found, name)) != (None, None)
    }
    shown = ", ".join(
        f"{name} {value:.1e}" if isinstance(value, float) else f"{name}: {value}" for name, value in measured.items()
    )
    verdict = found.fault or f"reloaded {found.reloaded:.1e}"
    return f"{found.variant} on {found.base}, {found.seconds:.0f} s: {verdict}; {shown}"


def table(proven: Mapping[str, Mapping[str, Found]]) -> dict[str, dict[str, Any]]:
    """All of abilities.json."""
    return {name: row(found) for name, found in proven.items()}


LEGEND = """\
What each method can do was found out by doing it: ten steps on SmolLM2-135M-Instruct (on a small GPT-2 or Qwen2 where
the method needs one), saved, loaded by plain PEFT in another process with equal logits, and asked to answer.
4-bit and 8-bit: trains on such a base. Merges: into the base's weights, with equal logits. Mixes: several adapters
answer in one batch; the others answer one after the other. Packs: rows lie end to end without seeing each other.
Recomputes: takes gradient checkpointing.
"""
COLUMNS = {
    "nf4": "4-bit",
    "int8": "8-bit",
    "merge": "merges",
    "mixed": "mixes",
    "padding_free": "packs",
    "checkpointing": "recomputes",
}


def shown(rows: Mapping[str, Mapping[str, bool]]) -> str:
    """The README's table, and what it means."""
    head = ["Method", *COLUMNS.values(), ""]
    lines = [f"| {' | '.join(head)} |", f"| {' | '.join(['---'] * len(head))} |"]
    for name, can in rows.items():
        marks = ["✓" if can[column] else "–" for column in COLUMNS]
        lines.append(f"| `{name}` | {' | '.join(marks)} | {WHY.get(name, '')} |")
    return f"{LEGEND}\n" + "\n".join(lines) + "\n"


def in_readme() -> str:
    """The table as it stands in the README."""
    text = README.read_text(encoding="utf-8")
    return text[text.index(BEGIN) + len(BEGIN) : text.index(END)].strip() + "\n"


def write(rows: Mapping[str, Mapping[str, bool]]) -> None:
    """Put the table where the product reads it and where people do."""
    TABLE.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    text = README.read_text(encoding="utf-8")
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    README.write_text(f"{before}{BEGIN}\n\n{shown(rows)}\n{END}{after}", encoding="utf-8")


def bundled() -> Path:
    """The folder of the bundled model in the usual home."""
    from studio.engine.models import bundled

    return bundled.folder()


def models(real: Path, place: Path) -> dict[str, Path]:
    """Where each variant's model lies; the small random ones are made."""
    from tests.engine.conftest import make

    return {"bundled": real} | {kind: make(kind, place / kind) for kind in ("gpt2", "qwen2")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, required=True, help="folder for the measurements")
    parser.add_argument("--model", type=Path, help="folder of another llama than the bundled model, for a quick look")
    parser.add_argument("--only", nargs="*", help="names of variants")
    parser.add_argument("--bases", nargs="*", help="none, nf4, int8")
    parser.add_argument("--again", action="store_true", help="measure even what the cache holds")
    parser.add_argument("--write", action="store_true", help="write abilities.json and the README")
    chosen = parser.parse_args()
    warnings.filterwarnings("ignore")
    real = chosen.model or bundled()
    variants = [each for each in VARIANTS if not chosen.only or each.name in chosen.only]
    if chosen.bases:
        variants = [replace(each, bases=tuple(b for b in each.bases if b in chosen.bases)) for each in variants]
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["STUDIO_HOME"] = scratch
        registered()
        proven = prove(variants, models(real, Path(scratch)), chosen.cache, again=chosen.again)
    if chosen.write:
        missing = {each.name for each in VARIANTS} - proven.keys()
        write(json.loads(TABLE.read_text(encoding="utf-8")) | table(proven) if missing else table(proven))


if __name__ == "__main__":
    main()

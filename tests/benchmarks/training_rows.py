"""The rows of a training benchmark, as alpaca rows and as the tokens that every contender learns.

Not here: the job that they are part of (training_job).
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from studio.data.example import Example, Message
from studio.home import CHECKOUT
from studio.specs import TrainSpec
from studio.templates import Policy, TextTokenizer, encode, resolve
from tests.benchmarks.import_rows import TEXT
from tests.benchmarks.training_job import SEED

INSTRUCTIONS = CHECKOUT.parent / "shared" / "data" / "instruct" / "rasbt_instruction.json"
Row = dict[str, str]


def real_rows(path: Path, count: int) -> list[Row]:
    """The first rows of an alpaca file after a shuffle that is always the same."""
    rows: list[Row] = json.loads(path.read_bytes())
    random.Random(SEED).shuffle(rows)
    return rows[:count]


def mixed_rows(count: int, longest: int) -> list[Row]:
    """Alpaca rows of English and Chinese words, from short to a little more than `longest` tokens, as chats are: many
    short, few long. The same for the same arguments."""
    chance, words = random.Random(SEED), TEXT.split()
    rows = []
    for number in range(count):
        length = min(longest, round(chance.lognormvariate(0, 0.9) * longest / 4) + 8)
        said = chance.choices(words, k=length)
        asked = max(1, length // 4)
        rows.append(
            {"instruction": f"{number}: {' '.join(said[:asked])}", "input": "", "output": " ".join(said[asked:])}
        )
    return rows


def tokenised(rows: list[Row], model: Path, cutoff: int) -> list[dict[str, Any]]:
    """input_ids and labels of each row, with the model's own template, as the studio writes and cuts them."""
    tokenizer = TextTokenizer.from_folder(model)
    template, spec = resolve("auto", tokenizer), TrainSpec.model_validate({"data": {"max_length": cutoff}})
    policy = Policy.of(spec.template, spec.data)
    found = []
    for row in rows:
        asked = f"{row['instruction']}\n{row['input']}" if row["input"] else row["instruction"]
        example = Example((Message("user", asked), Message("assistant", row["output"])))
        done = encode(example, template, tokenizer, policy)
        labels = [each if on else -100 for each, on in zip(done.input_ids, done.supervised, strict=True)]
        found.append({"input_ids": done.input_ids, "labels": labels})
    return found


def write(rows: list[Row], model: Path, cutoff: int, folder: Path) -> dict[str, str]:
    """Both files, as fields of a job."""
    places = {"rows": folder / "rows.json", "tokens": folder / "tokens.json"}
    places["rows"].write_text(json.dumps(rows), encoding="utf-8")
    places["tokens"].write_text(json.dumps(tokenised(rows, model, cutoff)), encoding="utf-8")
    return {name: str(place) for name, place in places.items()}

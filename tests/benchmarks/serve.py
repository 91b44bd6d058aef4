"""What the chat server gives to many at once: `python -m tests.benchmarks.serve [--clients 10] [--runs 3]`.

SmolLM2-135M and two adapters of random weights (rank 16, all linear layers), asked with OpenAI's own client for what
follows plain texts, streamed, so many tokens each.

    clients   one client, one request after the other, and all of them at once, each with a model of its own choosing:
              tokens a second
    columns   base and adapter for the same text: both at once, as two columns of the Chat tab, against the base alone
              and against one after the other
    memory    what the server holds with the base alone, and after both adapters have answered

Turns alternate, after one that is thrown away. Medians and spread are printed, and at the end one JSON object. Not a
test: it asserts nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import openai
import psutil

from studio.home import home
from studio.jobs.folder import JobFolder
from studio.serving import client
from studio.specs import BUNDLED_MODEL
from tests.benchmarks.start import MODEL, new_home, spread
from tests.examples import finished_run

BUDGETS = {"clients/one": 2.5, "two columns/one": 1.3}
"""Tokens a second at least; seconds at most."""
TEXTS = (
    "The history of the city begins with",
    "To make a good soup, first",
    "The three most important ideas in physics are",
    "Once upon a time there was a fox who",
    "A short list of animals that live in the sea:",
)


def adapters(base: Path) -> list[JobFolder]:
    """Two finished runs, each with an adapter that changes every answer a little."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from studio.engine.models.load import RECORD
    from studio.engine.models.resolve import identity

    made = []
    for seed in (1, 2):
        folder = finished_run(f"adapter-{seed}", sets=[f"model.name={BUNDLED_MODEL}"])
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        config = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
        model = get_peft_model(model, config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=0.002)
        folder.adapter.rmdir()
        model.save_pretrained(folder.adapter)
        record = {"base": BUNDLED_MODEL, "identity": identity(base)}
        (folder.adapter / RECORD).write_text(json.dumps(record), encoding="utf-8")
        made.append(folder)
    return made


class Asking:
    """One client of the server. Counts the tokens that came."""

    def __init__(self, address: Any, tokens: int):
        self._address, self._tokens = address, tokens

    async def together(self, asked: Sequence[tuple[str, str]]) -> tuple[int, float]:
        """All (model, text) at once. Returns: tokens that came, and seconds until the last of them."""
        began = time.perf_counter()
        connection = {"base_url": f"{self._address.url}/v1", "api_key": self._address.token, "max_retries": 0}
        async with openai.AsyncOpenAI(**connection) as client_:
            told = await asyncio.gather(*(self._one(client_, *each) for each in asked))
        return sum(told), time.perf_counter() - began

    async def in_turn(self, asked: Sequence[tuple[str, str]]) -> tuple[int, float]:
        """One after the other."""
        parts = [await self.together([each]) for each in asked]
        return sum(tokens for tokens, _ in parts), sum(seconds for _, seconds in parts)

    async def _one(self, client_: openai.AsyncOpenAI, model: str, text: str) -> int:
        stream = await client_.completions.create(
            model=model,
            prompt=text,
            max_tokens=self._tokens,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"repetition_penalty": 1.1},
        )
        count = 0
        async for chunk in stream:
            count = chunk.usage.completion_tokens if chunk.usage else count
        return count


def measured(asking: Asking, names: Sequence[str], count: int, runs: int) -> dict[str, list[float]]:
    """Seconds a token of each kind of turn, run by run; the first run is thrown away."""
    many = [(names[number % len(names)], TEXTS[number % len(TEXTS)]) for number in range(count)]
    taken: dict[str, list[float]] = {}
    for _ in range(runs + 1):
        turns = {
            "one client": asking.in_turn(many[:3]),
            "clients": asking.together(many),
            "one column": asking.together([("base", TEXTS[0])]),
            "two columns": asking.together([("base", TEXTS[0]), (names[1], TEXTS[0])]),
            "two in turn": asking.in_turn([("base", TEXTS[0]), (names[1], TEXTS[0])]),
        }
        for name, turn in turns.items():
            tokens, seconds = asyncio.run(turn)
            taken.setdefault(name, []).append(tokens / seconds if "client" in name else seconds)
            taken.setdefault(f"{name}, tokens", []).append(tokens)
    return {name: values[1:] for name, values in taken.items()}


def _rss_mib() -> float:
    server = next(each for each in psutil.Process().children() if "studio.serving.server" in " ".join(each.cmdline()))
    return server.memory_info().rss / 1024**2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--tokens", type=int, default=64, help="of each answer")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--model", type=Path, default=home().models / MODEL, help="the folder of the bundled model")
    parser.add_argument("--json", action="store_true", help="print the last line only")
    asked = parser.parse_args()
    model = asked.model.resolve()
    with tempfile.TemporaryDirectory() as place:
        os.environ["STUDIO_HOME"] = str(new_home(Path(place) / "home", model))
        names = ["base", *(folder.id for folder in adapters(model))]
        asking = Asking(client.ensure(BUNDLED_MODEL), asked.tokens)
        try:
            asyncio.run(asking.together([("base", TEXTS[0])]))
            memory = {"base alone": _rss_mib()}
            asyncio.run(asking.together([(name, TEXTS[0]) for name in names]))
            memory["with two adapters"] = _rss_mib()
            taken = measured(asking, names, asked.clients, asked.runs)
        finally:
            client.stop()
    figures = {name: spread(values) for name, values in taken.items()}
    middle = {name: figure["median"] for name, figure in figures.items()}
    ratios = {
        "clients/one": round(middle["clients"] / middle["one client"], 3),
        "two columns/one": round(middle["two columns"] / middle["one column"], 3),
        "two columns/two in turn": round(middle["two columns"] / middle["two in turn"], 3),
    }
    if not asked.json:
        for name, figure in figures.items():
            unit = "tokens" if "tokens" in name else "tokens/s" if "client" in name else "s"
            print(f"{name:<24}{figure['median']:9.2f} {unit} ({figure['least']:.2f} to {figure['greatest']:.2f})")
        for name, mib in memory.items():
            print(f"{name:<24}{mib:9.0f} MiB")
        for name, ratio in ratios.items():
            print(f"{name:<24}{ratio:9.2f}" + (f", budget {BUDGETS[name]}" if name in BUDGETS else ""))
    print(json.dumps({"figures": figures, "memory_mib": memory, "ratios": ratios, "budgets": BUDGETS}))


if __name__ == "__main__":
    main()

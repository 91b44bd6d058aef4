"""The optimiser step of the fast path, as a part of trl's SFTTrainer: all rows of a step, in as few passes as fit.

Micro-batches of a step are gathered until its last one, then computed in passes of at most so many tokens; their losses
are sums over the tokens of the step, so how they are divided changes nothing. Where memory runs out, the step begins
again with half as many tokens a pass. Not here: the loop around it (transformers), and the pass (path).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from trl import SFTTrainer

from studio.engine.fast.documents import Document, grouped
from studio.engine.fast.path import Path
from studio.engine.fast.sizes import TOKENS
from studio.engine.limits.memory import out_of_memory
from studio.engine.models.memory import keep_heap_small
from studio.errors import OutOfMemory
from studio.events import Emit, Note


class Collator:
    """Rows to one batch: ids and labels end to end, (1, T), and the length of each document, (D,)."""

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        lengths = [length for row in rows for length in row.get("seq_lengths") or [len(row["input_ids"])]]
        ids, labels = (torch.tensor([each for row in rows for each in row[name]]) for name in ("input_ids", "labels"))
        begins = torch.tensor([0, *lengths[:-1]]).cumsum(0)
        labels[begins] = -100  # nothing comes before a first token
        return {"input_ids": ids[None], "labels": labels[None], "lengths": torch.tensor(lengths)}


def documents_of(batch: dict[str, torch.Tensor]) -> list[Document]:
    """The rows of a batch of Collator's."""
    lengths = batch["lengths"].tolist()
    sides = (batch[name][0].cpu().split(lengths) for name in ("input_ids", "labels"))
    return [Document(ids, labels) for ids, labels in zip(*sides, strict=True)]


class FastTrainer(SFTTrainer):
    """`take` must be called before it trains."""

    path: Path
    emit: Emit
    most: int
    """Tokens of a pass."""

    def __init__(self, **options: Any):
        super().__init__(**options)
        self.data_collator = Collator()
        self._gathered: list[Document] = []
        self.most = 0

    def take(self, path: Path, emit: Emit) -> None:
        """Go this way."""
        self.path, self.emit, self.most = path, emit, TOKENS[self.args.device.type]
        if self.args.device.type == "cpu":
            keep_heap_small()
        if self.args.gradient_checkpointing:  # as transformers does, but before the preflight
            self._recompute()

    def take_less(self, peak: str) -> None:
        """Half as many tokens in a pass, because of a peak that came close to all memory."""
        self.most = max(1, self.most // 2)
        self.emit(Note(text=_TIGHT.format(peak=peak, tokens=f"{self.most:,}")))

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """Returns: the loss of the whole step at its last micro-batch, and 0 before."""
        model.train()
        self._gathered += documents_of(inputs)
        if not self.accelerator.sync_gradients:
            return torch.zeros((), device=self.args.device)
        documents, self._gathered = self._gathered, []
        while True:
            try:
                return self._step(documents)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
            self._lower(documents)  # outside of the handler, where the error would keep alive what was computed

    def lower(self, batch: dict[str, torch.Tensor]) -> None:
        """Take less memory from now on, because it ran out with this batch. Raises: OutOfMemory: it cannot be less."""
        self._lower(documents_of(batch))

    def _step(self, documents: Sequence[Document]) -> torch.Tensor:
        told, count = torch.zeros(3, dtype=torch.float64), max(1, sum(each.learned for each in documents))
        for group in grouped(documents, self.most):
            batch = self.path.passed(group, self.args.device)
            with self.path.within(batch):
                found = self.path.run(batch)
                self.accelerator.backward(found.loss / count)
            told += torch.stack([found.loss.detach().double(), found.right.double(), found.entropy.double()]).cpu()
        self._tell("train", told, count, sum(map(len, documents)))
        return (told[0] / count).float().to(self.args.device)

    def _lower(self, documents: Sequence[Document]) -> None:
        """Half as many tokens in a pass; then recomputed activations; then it cannot be."""
        self.model.zero_grad()
        self.path.arena.drop()
        torch.cuda.empty_cache()
        longest = max(map(len, documents))
        now = min(self.most, sum(map(len, documents)))
        if now > longest:
            self.most = max(now // 2, longest)
            self.emit(Note(text=_LESS.format(step=self.state.global_step + 1, tokens=f"{self.most:,}")))
        elif not self.model.is_gradient_checkpointing:
            self._recompute()
            self.emit(Note(text=_RECOMPUTED.format(step=self.state.global_step + 1)))
        else:
            raise OutOfMemory(_TOO_LONG.format(tokens=f"{longest:,}"))

    def _recompute(self) -> None:
        self.model.enable_input_require_grads()
        self.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **options: Any) -> torch.Tensor:
        """The mean over a validation batch."""
        documents = documents_of(inputs)
        told, count = torch.zeros(3, dtype=torch.float64), 0
        for group in grouped(documents, self.most):
            batch = self.path.passed(group, self.args.device)
            with self.path.within(batch):
                found = self.path.run(batch)
            told += torch.stack([found.loss.double(), found.right.double(), found.entropy.double()]).cpu()
            count += len(batch.targets)
        self._tell("eval", told, count, 0)
        return (told[0] / max(count, 1)).float().to(self.args.device)

    def _tell(self, mode: str, told: torch.Tensor, count: int, tokens: int) -> None:
        self._total_train_tokens += tokens
        figures = self._metrics[mode]
        figures["entropy"].append(float(told[2]) / max(count, 1))
        figures["mean_token_accuracy"].append(float(told[1]) / max(count, 1))
        figures["num_tokens"] = [self._total_train_tokens]


_TIGHT = "The longest rows took {peak}, nearly all memory, so steps take {tokens} tokens at a time."
_LESS = (
    "Memory ran out in step {step}, which began again with {tokens} tokens at a time. The rows of a step stay the same."
)
_RECOMPUTED = (
    "Memory ran out in step {step}, which began again with recomputed activations: slower, with less memory. "
    "The rows of a step stay the same."
)
_TOO_LONG = (
    "Out of memory with a single row of {tokens} tokens. Lower data.max_length, quantise the base, or choose a smaller "
    "one."
)

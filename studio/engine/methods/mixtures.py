"""AdaMix: several low-rank adapters a layer, drawn at random while they train, averaged into one at the end.

The copies lie in one LoRA adapter of as many times the rank, whose two products take one part of it each. Not here: how
a LoRA is put on a model (PEFT), and which layers it is put beside (placing).
Source: Wang et al. 2022, arXiv:2205.12410.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from studio.engine.methods.placing import placed
from studio.engine.methods.tuning import ADAPTER, Context, Tuning, trainable
from studio.specs import AdamixMethod

DOWN, UP = "lora_A", "lora_B"
IGNORED = -100
"""The label of a position that carries no loss."""


class Drawn(nn.Linear):
    """Several copies of a linear layer without bias in one weight: one at random while training, else their average.

    side: along which side of the weight the copies lie: 0 for those down (copies x rank, in), 1 for those up
    (out, copies x rank). A and B are drawn apart, at each pass anew.
    Source: section 3.1 (stochastic routing), 3.3 (averaging).
    """

    def __init__(self, weight: nn.Parameter, copies: int, side: int):
        super().__init__(weight.shape[1], weight.shape[0], bias=False, device="meta")
        self.weight, self.copies, self.side = weight, copies, side

    def forward(self, seen: torch.Tensor) -> torch.Tensor:
        """(…, in) -> (…, rank) on the way down, (…, rank) -> (…, out) on the way up."""
        if not self.training:
            return functional.linear(seen, self.average())
        # of the CPU's generator, whose state every checkpoint holds and recomputed activations put back
        drawn = int(torch.randint(self.copies, ()))
        return functional.linear(seen, self.weight.chunk(self.copies, self.side)[drawn])

    def average(self) -> torch.Tensor:
        return averaged(self.weight, self.copies, self.side)


def averaged(weight: torch.Tensor, copies: int, side: int) -> torch.Tensor:
    """The mean of copies that lie along a side of one weight. Source: section 3.3."""
    return torch.stack(weight.chunk(copies, side)).mean(0)


def adamix(method: AdamixMethod) -> Tuning:
    """Source: sections 3.1 to 3.3, with LoRA as the adaptation module (section 3.5)."""

    def attach(model: Any, context: Context) -> Any:
        config = LoraConfig(
            task_type=context.task,
            # the same alpha / rank as each copy has alone
            r=method.rank * method.copies,
            lora_alpha=method.alpha * method.copies,
            lora_dropout=method.dropout,
            **placed(method, model),
        )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="fan_in_fan_out is set to")  # PEFT sets it right itself
            tuned = get_peft_model(model, config)
        for layer in tuned.modules():
            if isinstance(layer, LoraLayer):
                for side, products in enumerate((layer.lora_A, layer.lora_B)):
                    products[ADAPTER] = Drawn(products[ADAPTER].weight, method.copies, side)
        return tuned

    def save(model: Any, folder: Path) -> None:
        save_average(model, folder, method)

    return Tuning(
        attach=attach,
        save=save,
        state=trainable,
        loss=consistent(method.consistency) if method.consistency else None,
    )


def save_average(model: Any, folder: Path, method: AdamixMethod) -> None:
    """Write one plain LoRA adapter, whose A and B are the averages of the copies."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = get_peft_model_state_dict(model, adapter_name=ADAPTER)
    save_file(dict(_averages(tensors, method.copies)), folder / "adapter_model.safetensors", {"format": "pt"})
    config = copy.copy(model.peft_config[ADAPTER])
    config.r, config.lora_alpha, config.inference_mode = method.rank, method.alpha, True
    config.save_pretrained(str(folder))


def _averages(tensors: Mapping[str, torch.Tensor], copies: int) -> Iterator[tuple[str, torch.Tensor]]:
    for name, tensor in tensors.items():
        side = {DOWN: 0, UP: 1}.get(name.split(".")[-2])
        kept = tensor if side is None else averaged(tensor, copies, side)
        yield name, kept.detach().contiguous()


def consistent(weight: float) -> Callable[[Callable[..., Any], Any, Any, float], torch.Tensor]:
    """A loss that also makes two draws answer alike at every supervised position, or about every row to be classified.

    Two passes: one for the usual loss, one more for what the other draw says. Source: section 3.2, equation 5.
    """

    def loss(usual: Callable[..., Any], model: Any, inputs: Any, share: float) -> torch.Tensor:
        asked = {name: value for name, value in inputs.items() if name != "labels"}
        with _answers(model, inputs["labels"]) as answers:
            total = usual(model, inputs)
            model(**asked, **_last_logit_only(model))
            return total + weight * share * divergence(*answers())

    return loss


def divergence(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Half of KL(one || other) + KL(other || one), the mean over rows. one, other: logits, (N, V)."""
    first, second = one.float().log_softmax(-1), other.float().log_softmax(-1)
    return ((first.exp() - second.exp()) * (first - second)).sum(-1).mean() / 2


@contextlib.contextmanager
def _answers(model: Any, labels: torch.Tensor) -> Iterator[Callable[[], list[torch.Tensor]]]:
    """What each pass within says where there is a label, as logits, (N, V); of a classifier, (B, labels).

    The backbone's hidden states are caught, and the head runs where it is asked: trl's loss never has the logits.
    """
    base = model.get_base_model()
    head = base.get_output_embeddings()
    caught: list[torch.Tensor] = []
    place = base if head is None else base.base_model
    hook = place.register_forward_hook(
        lambda module, args, output: caught.append(output.logits if head is None else output[0])
    )

    def answers() -> list[torch.Tensor]:
        if head is None:
            return caught
        # the last position predicts nothing; what it would is not known
        supervised = labels[:, 1:] != IGNORED
        return [head(hidden[:, :-1][supervised].to(head.weight.dtype)) for hidden in caught]

    try:
        yield answers
    finally:
        hook.remove()


def _last_logit_only(model: Any) -> dict[str, int]:
    forward = type(model.get_base_model()).forward
    return {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(forward).parameters else {}

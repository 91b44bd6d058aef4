"""The parameters of the methods that choose no layers by name: soft prompts, sublayers, and parts of the base itself.

Every function takes the run's spec and the shapes of the model. Not here: heads (parameters).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import prod

from studio.engine.counting.added import Added, trained
from studio.engine.counting.shapes import Shapes, number
from studio.specs import TrainSpec


def adaption_prompt(spec: TrainSpec, shapes: Shapes) -> Added:
    """A prompt and a gate in each of the upper layers."""
    layers = min(spec.method.adapter_layers, shapes.layers)
    return trained(layers * (spec.method.adapter_length * shapes.hidden + 1), layers)


def bottleneck(spec: TrainSpec, shapes: Shapes) -> Added:
    """Down and up, each with a bias, behind one or two sublayers of each decoder layer."""
    places = shapes.layers * (2 if spec.method.placement == "houlsby" else 1)
    width, hidden = spec.method.bottleneck_size, shapes.hidden
    return trained(places * (2 * width * hidden + width + hidden), places)


def prompt_tuning(spec: TrainSpec, shapes: Shapes) -> Added:
    return trained(spec.method.virtual_tokens * shapes.hidden)


def multitask_prompt_tuning(spec: TrainSpec, shapes: Shapes) -> Added:
    method, tasks = spec.method, max(1, len(spec.data.datasets))
    own = tasks * method.task_rank * (method.virtual_tokens + shapes.hidden)
    return trained(method.virtual_tokens * shapes.hidden + own)


def p_tuning(spec: TrainSpec, shapes: Shapes) -> Added:
    """The encoder trains; what it writes is saved."""
    method, hidden, width = spec.method, shapes.hidden, spec.method.encoder_hidden_size
    prompt = method.virtual_tokens * hidden
    if method.encoder == "mlp":
        encoder = _linear(hidden, width) + _linear(width, width) + _linear(width, hidden)
    else:
        inputs = [hidden] + [2 * width] * (method.encoder_layers - 1)
        # two directions of four gates with two biases each
        encoder = sum(8 * width * (size + width + 2) for size in inputs)
        encoder += _linear(2 * width, 2 * width) + _linear(2 * width, hidden)
    return Added(new=prompt + encoder, saved=prompt)


def prefix_tuning(spec: TrainSpec, shapes: Shapes) -> Added:
    """A key and a value for every layer, of the width that its keys have."""
    method, width = spec.method, _key_width(shapes)
    prefix = 2 * shapes.layers * width
    if not method.projection:
        return trained(method.virtual_tokens * prefix)
    inner = method.encoder_hidden_size
    encoder = method.virtual_tokens * width + _linear(width, inner) + _linear(inner, prefix)
    return Added(new=encoder, saved=method.virtual_tokens * prefix)


def full(spec: TrainSpec, shapes: Shapes) -> Added:
    return Added(own=shapes.total, saved=shapes.total, targets=shapes.layers)


def freeze(spec: TrainSpec, shapes: Shapes) -> Added:
    first = shapes.layers - spec.method.last_layers
    names = [name for name in shapes.weights if (at := number(name)) is not None and at >= first]
    return _copies(shapes, names, targets=spec.method.last_layers)


def bitfit(spec: TrainSpec, shapes: Shapes) -> Added:
    names = biases(shapes)
    return _copies(shapes, names, targets=len(names))


def biases(shapes: Shapes) -> list[str]:
    return [name for name in shapes.weights if name.endswith(".bias")]


def ln_tuning(spec: TrainSpec, shapes: Shapes) -> Added:
    names = [name for norm in shapes.norms for name in shapes.inside(norm)]
    return _copies(shapes, names, targets=len(shapes.norms))


def trainable_tokens(spec: TrainSpec, shapes: Shapes) -> Added:
    """A vector for each token; a tied head saves them once more."""
    tokens = len(set(spec.method.train_tokens))
    vectors = tokens * shapes.hidden
    return Added(new=vectors, saved=vectors * (2 if shapes.tied else 1), targets=tokens)


def _copies(shapes: Shapes, names: Iterable[str], *, targets: int) -> Added:
    """Parts of the base of which copies train, so that the base itself stays as it was."""
    return trained(sum(prod(shapes.weights[name]) for name in names), targets)


def _linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def _key_width(shapes: Shapes) -> int:
    config = shapes.config
    groups = config.get("num_key_value_heads")
    heads = config.get("num_attention_heads") or config.get("n_head") or 1
    if not groups:
        return shapes.hidden
    return groups * (config.get("head_dim") or shapes.hidden // heads)


OTHERS: Mapping[str, Callable[[TrainSpec, Shapes], Added]] = {
    "adaption_prompt": adaption_prompt,
    "bottleneck": bottleneck,
    "prompt_tuning": prompt_tuning,
    "multitask_prompt_tuning": multitask_prompt_tuning,
    "p_tuning": p_tuning,
    "prefix_tuning": prefix_tuning,
    "full": full,
    "freeze": freeze,
    "bitfit": bitfit,
    "ln_tuning": ln_tuning,
    "trainable_tokens": trainable_tokens,
}

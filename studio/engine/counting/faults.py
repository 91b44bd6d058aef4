"""What keeps a method from being put on a model, all together, with the nearest names of that model.

Not here: limits of one field, and combinations that no model allows (studio.specs).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from math import gcd
from typing import Any

from studio.engine.counting.heads import headed
from studio.engine.counting.others import biases
from studio.engine.counting.shapes import SCORE, Layer, Shapes, number, shapes_of
from studio.engine.counting.targeted import rank_of
from studio.engine.counting.targets import AUTO, chosen, fused, left_out, meaning, named, whole
from studio.engine.models.tokenizer import NotHere, tokenizer_of
from studio.errors import DataError, Fault, SpecError
from studio.specs import ALL_LINEAR, ATTENTION, TrainSpec

PROMPTED = ("gpt2", "llama", "mistral")
"""Model types that adaption_prompt knows."""
SUBLAYERS = {"MLP": ("mlp", "feed_forward", "ffn"), "attention": ("attn", "attention")}
"""How the names of the parts end that bottleneck adapters stand behind."""
ONLY_LINEAR = ("loha", "lokr", "oft", "boft", "hra", "miss")
"""Methods that do not know Conv1D layers."""
MANY = 1000
"""Labels of a classifier whose rows cannot be read, so that no size is told to be too small for them."""
_SHOWN = 20


def target_faults(spec: TrainSpec) -> list[Fault]:
    """Everything about a run's method that its model rules out.

    Raises: NotHere: the model is not on this machine yet. ModelError: its files are wrong, or tell too little.
    """
    shapes = shapes_of(spec.model.name)
    try:
        return faults_on(spec, headed(spec, shapes))
    except DataError:  # which is told where the rows are asked for
        return faults_on(spec, headed(spec, shapes, labels=MANY))


def faults_on(spec: TrainSpec, shapes: Shapes) -> list[Fault]:
    """The same for a model whose shapes are known, with the head that the stage gives it."""
    method = spec.method
    if not hasattr(method, "target_modules"):
        check = _BY_KIND.get(method.kind)
        return [*(check(method, shapes) if check else ()), *_tokens(spec), *_prompt(spec, shapes)]
    return [*_about_layers(spec, shapes), *_tokens(spec)]


def _about_layers(spec: TrainSpec, shapes: Shapes) -> list[Fault]:
    """Each question is asked once those before it are answered well."""
    method = spec.method
    if broken := list(_patterns(method)):
        return broken
    if wrong := [*_names(method, shapes), *_layers(method, shapes)]:
        return wrong
    if unfit := list(_kinds(method, shapes, quantised=spec.quantization.kind != "none")):
        return unfit
    layers = chosen(method, shapes)
    if not layers:
        return [Fault("method.target_modules", "leaves no layer to adapt. Name others, or exclude fewer.")]
    if getattr(spec.stage, "head", "whole") == "adapter":
        layers = [*layers, shapes.linear[SCORE]]
    return [*_ranks(method, shapes, layers), *_sizes(method, layers), *_start(method, layers)]


def _patterns(method: Any) -> Iterator[Fault]:
    for field in ("target_modules", "exclude_modules"):
        for word in getattr(method, field):
            if word.startswith("re:") and (reason := _broken(word.removeprefix("re:"))):
                yield Fault(f"method.{field}", f"'{word}' is no regular expression: {reason}.")
    for field in ("rank_pattern", "alpha_pattern"):
        for word in getattr(method, field, {}):
            if reason := _broken(word):
                yield Fault(f"method.{field}", f"'{word}' is no regular expression: {reason}.")


def _broken(pattern: str) -> str | None:
    try:
        re.compile(pattern)
    except re.error as error:
        return str(error)
    return None


def _names(method: Any, shapes: Shapes) -> Iterator[Fault]:
    """Words that stand for nothing in this model."""
    try:
        layers = named(method.target_modules, shapes)
    except SpecError as error:
        yield from error.faults
        return
    words = [word for word in method.target_modules if word not in (ALL_LINEAR, ATTENTION, AUTO)]
    for field, given in (("target_modules", words), ("exclude_modules", method.exclude_modules)):
        for word in given:
            if not any(map(meaning([word]), shapes.modules)):
                yield _nothing(f"method.{field}", word, shapes)
    if not layers and not words:
        yield Fault("method.target_modules", f"{method.target_modules[0]} finds no layer in {shapes.label}. Name some.")
    for word in method.modules_to_save:
        if not whole([word], shapes):
            yield _nothing("method.modules_to_save", word, shapes)


def _nothing(field: str, word: str, shapes: Shapes) -> Fault:
    known = _leaves(shapes)
    near = difflib.get_close_matches(word.rpartition(".")[2], known, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return Fault(field, f"'{word}' names no layer of {shapes.label}.{hint} Layers: {', '.join(known[:_SHOWN])}.")


def _leaves(shapes: Shapes) -> list[str]:
    """The last parts of the names of layers, in the model's order."""
    ends = (name.rpartition(".")[2] for name in [*shapes.linear, shapes.embedding.name, *shapes.norms])
    return list(dict.fromkeys(ends))


def _layers(method: Any, shapes: Shapes) -> Iterator[Fault]:
    if wrong := [number for number in method.layers if number >= shapes.layers]:
        last = shapes.layers - 1
        yield Fault("method.layers", f"names layer {wrong[0]}, but the last layer of {shapes.label} is {last}.")


def _kinds(method: Any, shapes: Shapes, *, quantised: bool) -> Iterator[Fault]:
    """Parts that the words name and the method cannot adapt. bitsandbytes makes a Conv1D layer a linear one."""
    field = "method.target_modules"
    if other := next(iter(_not_linear(method, shapes)), None):
        yield Fault(field, f"holds {other}, which is no linear layer. Leave it out, or train it by modules_to_save.")
    for layer in chosen(method, shapes):
        if layer.transposed and method.kind in ONLY_LINEAR and not quantised:
            told = f"holds {layer.name}, which is a Conv1D layer, and {method.kind} cannot adapt these"
            yield Fault(field, f"{told}. Use lora, vera or ia3.")
            return


def _not_linear(method: Any, shapes: Shapes) -> Iterator[str]:
    if method.target_modules in ((ALL_LINEAR,), (ATTENTION,), (AUTO,)):
        return
    means, excluded = meaning(method.target_modules), left_out(method)
    for name in shapes.modules:
        if means(name) and name not in shapes.linear and not excluded(name):
            yield name


def _ranks(method: Any, shapes: Shapes, layers: Iterable[Layer]) -> Iterator[Fault]:
    """Patterns of ranks and alphas that fit none of the adapted layers."""
    names = [layer.name for layer in layers]
    ends = list(dict.fromkeys(layer.leaf for layer in layers))
    for field in ("rank_pattern", "alpha_pattern"):
        for pattern in getattr(method, field, {}):
            if not any(re.match(rf"(.*\.)?({pattern})$", name) for name in names):
                near = difflib.get_close_matches(pattern, ends, n=1)
                hint = f" Did you mean '{near[0]}'?" if near else ""
                told = f"'{pattern}' fits none of the adapted layers"
                yield Fault(f"method.{field}", f"{told}.{hint} Layers: {', '.join(ends[:_SHOWN])}.")
    if getattr(method, "split_fused", False) and not any(fused(layer, shapes) for layer in layers):
        told = f"needs a layer that holds query, key and value in this order, which {shapes.label} has not"
        yield Fault("method.split_fused", f"{told}, or not among those adapted. Turn it off.")


def _start(method: Any, layers: Iterable[Layer]) -> Iterator[Fault]:
    """What LoRA's starts cannot do with these layers and ranks."""
    init = getattr(method, "init", "default")
    if init in ("default", "gaussian", "orthogonal"):
        return
    for layer in layers:
        rank = rank_of(method, layer.name)
        most = layer.inputs if init == "eva" else min(layer.inputs, layer.outputs)
        if rank > most:
            size = f"{layer.name}, which is {layer.inputs} by {layer.outputs}"
            yield Fault("method.rank", f"is {rank}, but with init {init} {size}, can have {most} at most.")
            return


def _sizes(method: Any, layers: list[Layer]) -> Iterator[Fault]:
    """Sizes of the method that do not go into those of the layers."""
    inputs = [layer.inputs for layer in layers]
    outputs = [layer.outputs for layer in layers]
    match method.kind:
        case "oft" | "boft":
            yield from _in_blocks(method, inputs)
        case "vblora":
            if method.vector_length is not None:
                yield from _divides("vector_length", method.vector_length, [*inputs, *outputs])
            if method.top_k > method.num_vectors:
                told = f"is {method.top_k}, but the bank has {method.num_vectors} vectors"
                yield Fault("method.top_k", f"{told}. Lower it.")
        case "fourierft":
            smallest = min(layers, key=lambda layer: layer.inputs * layer.outputs)
            if method.frequencies > (most := smallest.inputs * smallest.outputs):
                told = f"is {method.frequencies}, but {smallest.name} has only {most} of them"
                yield Fault("method.frequencies", f"{told}. Lower it to that at most, or leave that layer out.")
        case "hra" | "miss":
            narrow = min(layers, key=lambda layer: layer.inputs)
            if method.rank > narrow.inputs:
                told = f"is {method.rank}, but {narrow.name} has {narrow.inputs} inputs"
                yield Fault("method.rank", f"{told}. Lower it to that at most.")
            elif method.kind == "miss" and method.shape == "bat":
                yield from _divides("rank", method.rank, [*inputs, *outputs])
            elif method.kind == "miss" and method.shape == "mini":
                yield from _divides("mini_rank", method.mini_rank, outputs)


def _in_blocks(method: Any, inputs: list[int]) -> Iterator[Fault]:
    factors = getattr(method, "butterfly_factors", 1)
    yield from _divides("block_size", method.block_size, inputs, times=2 ** (factors - 1))
    if factors > 1 and method.block_size % 2:
        yield Fault("method.block_size", f"must be even with {factors} butterfly factors, but is odd.")


def _divides(field: str, given: int, sizes: list[int], times: int = 1) -> Iterator[Fault]:
    """Whether a number, taken so many times, divides all sizes; if not, the nearest that would."""
    if wrong := sorted({size for size in sizes if size % (given * times)}):
        common = gcd(*sizes)
        fitting = [each for each in range(2, common + 1) if common % (each * times) == 0]
        near = sorted(sorted(fitting, key=lambda each: abs(each - given))[:3])
        remedy = f"Choose one of {', '.join(map(str, near))}." if near else "Adapt other layers."
        shown = ", ".join(map(str, wrong[:6]))
        yield Fault(f"method.{field}", f"is {given}, which does not divide sizes of the layers ({shown}). {remedy}")


def _last_layers(method: Any, shapes: Shapes) -> Iterator[Fault]:
    if method.last_layers > shapes.layers:
        told = f"is {method.last_layers}, but {shapes.label} has {shapes.layers} decoder layers"
        yield Fault("method.last_layers", f"{told}. Lower it.")


def _prompted(method: Any, shapes: Shapes) -> Iterator[Fault]:
    if shapes.kind not in PROMPTED:
        told = f"adaption_prompt knows models of type {', '.join(PROMPTED)}, but {shapes.label} is a {shapes.kind}"
        yield Fault("method.kind", f"{told}. Use prefix_tuning instead.")


def _biased(method: Any, shapes: Shapes) -> Iterator[Fault]:
    if not biases(shapes):
        yield Fault("method.kind", f"bitfit trains biases, and {shapes.label} has none. Use ln_tuning or lora.")


def _sublayers(method: Any, shapes: Shapes) -> Iterator[Fault]:
    """Whether each decoder layer has an MLP, and an attention, to stand behind."""
    inside = {name.split(f".{number(name)}.", 1)[1].split(".")[0] for name in shapes.modules if number(name) == 0}
    parts = sorted(part for part in inside if "norm" not in part)
    for what, words in SUBLAYERS.items():
        if (what == "MLP" or method.placement == "houlsby") and not any(part.endswith(words) for part in parts):
            told = f"bottleneck finds no {what} under a known name in the layers of {shapes.label}: {', '.join(parts)}"
            yield Fault("method.kind", f"{told}. Use lora.")


def _tokens(spec: TrainSpec) -> Iterator[Fault]:
    """Texts that are not one token of the model."""
    texts = getattr(spec.method, "train_tokens", ())
    if not texts:
        return
    try:
        tokenizer = tokenizer_of(spec.model.name)
    except NotHere:
        return  # the run fetches it and asks again
    for text in texts:
        ids = tokenizer.ids(text)
        if len(ids) != 1:
            told = f"'{text}' is {len(ids)} tokens for {spec.model.name}"
            yield Fault("method.train_tokens", f"{told}. Name texts that are one token.")


def _prompt(spec: TrainSpec, shapes: Shapes) -> Iterator[Fault]:
    """Virtual tokens take positions of the model."""
    positions = shapes.config.get("max_position_embeddings") or shapes.config.get("n_positions")
    wanted = spec.data.max_length + getattr(spec.method, "virtual_tokens", 0)
    if hasattr(spec.method, "virtual_tokens") and positions and wanted > positions:
        told = f"and data.max_length take {wanted} positions together, but the model has {positions}"
        yield Fault("method.virtual_tokens", f"{told}. Lower one of them.")


_BY_KIND = {"freeze": _last_layers, "adaption_prompt": _prompted, "bitfit": _biased, "bottleneck": _sublayers}

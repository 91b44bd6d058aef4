"""Products, rotations, shared banks and spectra: each trains, reloads by plain PEFT, merges, and takes its fields."""

import copy
from types import SimpleNamespace

import pytest
import torch
from pydantic import TypeAdapter
from transformers import AutoModelForCausalLM

from studio.engine.methods import tuning
from studio.errors import SpecError
from studio.events import Step
from studio.specs import Method
from tests.engine.methods.runs import IDS, logits, sums, train

SMALL = {
    "loha": {"rank": 4, "alpha": 8},
    "lokr": {"rank": 4, "alpha": 8},
    "oft": {"block_size": 8},
    "boft": {"block_size": 4},
    "vera": {"rank": 16},
    "randlora": {"rank": 4, "alpha": 16},
    "vblora": {"num_vectors": 16},
    "fourierft": {"frequencies": 50},
    "hra": {"rank": 4},
    "miss": {"rank": 8},
}


@pytest.fixture(scope="module")
def base(tiny):
    return AutoModelForCausalLM.from_pretrained(tiny())


def attached(base, **method):
    model = tuning(TypeAdapter(Method).validate_python(method)).attach(
        copy.deepcopy(base), SimpleNamespace(task="CAUSAL_LM")
    )
    return model, model.peft_config["default"]


@pytest.mark.filterwarnings("ignore::UserWarning")  # what PEFT says of BOFT's extension and of shared projections
@pytest.mark.parametrize("kind", SMALL)
def test_it_trains_and_plain_peft_reloads_and_merges_it_with_equal_logits(tiny, studio_home, tmp_path, kind):
    ran = train(tiny(), sums(tmp_path), tmp_path / "run", {"kind": kind, **SMALL[kind]})
    losses = [step.loss for step in ran.run.of(Step)]
    assert len(set(losses)) == len(losses) == 3
    model, plain = ran.reloaded(), ran.plain()
    answers = logits(model)
    assert (answers - logits(plain)).abs().max() > 1e-4, "the adapter changes nothing"
    again = ran.reloaded(ran.run.checkpoints / "checkpoint-3")
    assert torch.equal(logits(again), answers), "the last checkpoint is the outcome"
    assert torch.allclose(logits(model.merge_and_unload()), answers, atol=1e-4)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ({"kind": "loha", "rank": 3, "alpha": 5}, {"r": 3, "alpha": 5}),
        ({"kind": "loha", "rank_dropout": 0.1, "module_dropout": 0.2}, {"rank_dropout": 0.1, "module_dropout": 0.2}),
        (
            {"kind": "lokr", "decompose_both": True, "decompose_factor": 8, "rank_dropout": 0.1, "module_dropout": 0.2},
            {"decompose_both": True, "decompose_factor": 8, "rank_dropout": 0.1, "module_dropout": 0.2},
        ),
        (
            {"kind": "oft", "block_size": 16, "module_dropout": 0.1, "constrained": True, "shared_blocks": True},
            {"oft_block_size": 16, "module_dropout": 0.1, "coft": True, "block_share": True},
        ),
        ({"kind": "boft", "block_size": 8, "dropout": 0.1}, {"boft_block_size": 8, "boft_dropout": 0.1}),
        (
            {"kind": "vera", "rank": 8, "dropout": 0.1, "projection_seed": 7, "save_projection": False},
            {"r": 8, "vera_dropout": 0.1, "projection_prng_key": 7, "save_projection": False},
        ),
        (
            {"kind": "randlora", "rank": 8, "alpha": 9, "dropout": 0.1, "projection_seed": 7, "save_projection": False},
            {
                "r": 8,
                "randlora_alpha": 9,
                "randlora_dropout": 0.1,
                "projection_prng_key": 7,
                "save_projection": False,
            },
        ),
        (
            {"kind": "vblora", "rank": 2, "num_vectors": 8, "vector_length": 16, "top_k": 3, "dropout": 0.1},
            {"r": 2, "num_vectors": 8, "vector_length": 16, "topk": 3, "vblora_dropout": 0.1},
        ),
        ({"kind": "fourierft", "frequencies": 20, "scaling": 90}, {"n_frequency": 20, "scaling": 90}),
        ({"kind": "hra", "rank": 4, "orthogonal": True}, {"r": 4, "apply_GS": True}),
        ({"kind": "miss", "rank": 8, "dropout": 0.1, "shape": "bat"}, {"miss_dropout": 0.1, "init_weights": "bat"}),
        ({"kind": "miss", "rank": 8, "shape": "mini", "mini_rank": 4}, {"init_weights": "mini", "mini_r": 4}),
    ],
    ids=lambda value: value.get("kind") if isinstance(value, dict) else None,
)
def test_its_fields_reach_the_library_and_a_step_can_be_taken(base, method, expected):
    model, config = attached(base, **method)
    assert {name: getattr(config, name) for name in expected} == expected
    model.train()
    model(input_ids=IDS, labels=IDS).loss.backward()
    assert any(each.grad is not None and each.grad.any() for each in model.parameters() if each.requires_grad)


@pytest.mark.parametrize(
    ("method", "field", "told"),
    [
        ({"kind": "oft", "block_size": 24}, "method.block_size", "Choose one of 8, 16, 32"),
        ({"kind": "boft", "block_size": 5}, "method.block_size", "Choose one of 2, 4, 8"),
        ({"kind": "vblora", "vector_length": 48}, "method.vector_length", "Choose one of 8, 16, 32"),
        ({"kind": "vblora", "num_vectors": 4, "top_k": 5}, "method.top_k", "has 4 vectors"),
        ({"kind": "fourierft", "frequencies": 5000}, "method.frequencies", "the smallest layer has only 2048"),
        ({"kind": "hra", "rank": 65}, "method.rank", "the smallest layer has 64 inputs"),
        ({"kind": "miss", "rank": 65}, "method.rank", "the smallest layer has 64 inputs"),
        ({"kind": "miss", "rank": 24, "shape": "bat"}, "method.rank", "Choose one of 8, 16, 32"),
        ({"kind": "miss", "rank": 8, "shape": "mini", "mini_rank": 7}, "method.mini_rank", "Choose one of"),
    ],
    ids=lambda value: value["kind"] if isinstance(value, dict) else None,
)
def test_a_number_that_this_model_cannot_take_is_refused_with_those_it_can(base, method, field, told):
    with pytest.raises(SpecError) as error:
        attached(base, **method)
    assert error.value.faults[0].field == field and told in error.value.faults[0].reason


@pytest.mark.skipif(torch.cuda.is_available(), reason="PEFT may build its extension here")
def test_butterfly_factors_that_peft_would_silently_ignore_are_refused(base):
    with pytest.raises(SpecError, match=r"butterfly_factors: needs PEFT's CUDA extension"):
        attached(base, kind="boft", block_size=4, butterfly_factors=2)


def test_vectors_are_as_long_as_every_layer_allows_unless_said(base):
    assert attached(base, kind="vblora")[1].vector_length == 32


@pytest.mark.parametrize("kind", ["vera", "randlora", "vblora", "fourierft"])
def test_it_adapts_the_conv1d_layers_of_gpt2(tiny, kind):
    model, _ = attached(AutoModelForCausalLM.from_pretrained(tiny("gpt2")), kind=kind, **SMALL[kind])
    assert len(model.base_model.targeted_module_names) == 8

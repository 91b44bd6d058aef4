"""AdaMix: copies drawn at random while training, their average everywhere else, and one plain LoRA in the end."""

import json
import shutil

import pytest
import torch
from peft import PeftConfig, PeftModel
from safetensors.torch import load_file
from torch.nn import functional
from transformers import AutoModelForCausalLM

from studio.engine.methods import Context
from studio.engine.methods.mixtures import Drawn, adamix, divergence
from studio.events import Plan, Step
from studio.specs import AdamixMethod, TrainSpec
from tests.engine.methods.runs import IDS, logits, sums, train
from tests.engine.test_train import Run

METHOD = {"kind": "adamix", "rank": 4, "alpha": 8, "copies": 3, "dropout": 0.1}
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def ran(tiny, tmp_path_factory):
    """A run of five steps with a checkpoint after each."""
    place = tmp_path_factory.mktemp("adamix")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDIO_HOME", str(place / "home"))
        steps = {"max_steps": 5, "save_steps": 1, "save_total_limit": 9}
        yield train(tiny(), sums(place), place / "run", METHOD, training=steps)


def attached(tiny, kind="llama", **options):
    model = AutoModelForCausalLM.from_pretrained(tiny(kind), dtype=torch.float32)
    method = AdamixMethod(**{"rank": 4, "alpha": 8, "copies": 3} | options)
    context = Context(TrainSpec(), tiny(kind), lambda text: [], lambda count: iter(()))
    return method, adamix(method), adamix(method).attach(model, context)


def spread(model):
    """Give the copies up something to say: they begin at zero."""
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)


def test_each_pass_takes_one_of_the_copies_and_each_is_taken():
    weight = torch.nn.Parameter(torch.randn(6, 5))
    down, up = Drawn(weight, 3, 0), Drawn(torch.nn.Parameter(torch.randn(7, 6)), 3, 1)
    seen = torch.randn(4, 5)
    one_each = [functional.linear(seen, part) for part in weight.chunk(3)]
    passes = [down(seen) for _ in range(60)]
    drawn = [next(n for n, each in enumerate(one_each) if torch.equal(each, one)) for one in passes]
    assert set(drawn) == {0, 1, 2}
    assert torch.allclose(down.eval()(seen), functional.linear(seen, weight.view(3, 2, 5).mean(0)))
    assert up(down(seen)).shape == (4, 7)


def test_every_copy_has_the_gradient_of_the_passes_that_took_it(tiny):
    _, _, model = attached(tiny)
    spread(model)
    model.train()
    layer = model.get_base_model().model.layers[0].mlp.up_proj
    model(input_ids=IDS, labels=IDS).loss.backward()
    taken = [bool(part.abs().sum()) for part in layer.lora_A["default"].weight.grad.chunk(3)]
    assert sum(taken) == 1


def test_nothing_changes_at_the_start_and_the_average_answers_in_eval(tiny, tmp_path):
    method, tuning, model = attached(tiny, "gpt2")
    plain = AutoModelForCausalLM.from_pretrained(tiny("gpt2"), dtype=torch.float32)
    assert torch.equal(logits(model), logits(plain))
    spread(model)
    said = logits(model)
    assert torch.equal(said, logits(model)), "no draws in eval"
    tuning.save(model, tmp_path / "average")
    reloaded = PeftModel.from_pretrained(plain, tmp_path / "average")
    assert (logits(reloaded) - said).abs().max() < 1e-4
    config = reloaded.peft_config["default"]
    assert (config.peft_type, config.r, config.lora_alpha) == ("LORA", method.rank, method.alpha)


def test_divergence_is_half_of_both_ways():
    one, other = torch.randn(5, 9), torch.randn(5, 9)
    p, q = one.log_softmax(-1), other.log_softmax(-1)
    both = functional.kl_div(q, p, reduction="batchmean", log_target=True)
    both = (both + functional.kl_div(p, q, reduction="batchmean", log_target=True)) / 2
    assert divergence(one, other) == pytest.approx(both.item(), rel=1e-5) and divergence(one, one) == 0


def test_the_consistency_is_that_of_the_two_draws_at_supervised_positions(tiny):
    _, tuning, model = attached(tiny, consistency=2.0)
    spread(model)
    model.train()
    labels = IDS.clone()
    labels[:, :4] = -100
    inputs = {"input_ids": IDS, "labels": labels}

    def usual(model, inputs):
        return model(**inputs).loss

    torch.manual_seed(5)
    found = tuning.loss(usual, model, inputs, 0.25)
    torch.manual_seed(5)
    first, second = model(**inputs), model(**inputs)
    one, other = (output.logits[0, 3:-1] for output in (first, second))
    assert not torch.equal(one, other), "the draws differ"
    assert found.item() == pytest.approx((first.loss + 2.0 * 0.25 * divergence(one, other)).item(), rel=1e-5)
    assert found.requires_grad


def test_the_outcome_is_one_lora_of_the_asked_rank_that_merges(ran):
    (plan,) = ran.run.of(Plan)
    adapter = load_file(ran.run.adapter / WEIGHTS)
    assert plan.trainable_parameters == 3 * sum(tensor.numel() for tensor in adapter.values())
    assert PeftConfig.from_pretrained(ran.run.adapter).r == 4
    model = ran.reloaded()
    moved = logits(model)
    assert (moved - logits(ran.plain())).abs().max() > 1e-3
    assert (logits(model.merge_and_unload()) - moved).abs().max() < 1e-4


def test_a_checkpoint_opens_as_the_average_of_what_it_goes_on_from(ran):
    last = ran.run.checkpoints / "checkpoint-5"
    outcome = load_file(ran.run.adapter / WEIGHTS)
    for name, tensor in load_file(last / WEIGHTS).items():
        assert torch.equal(tensor, outcome[name]), name
    copies = next(t for n, t in load_file(last / "training_state.safetensors").items() if "lora_A" in n)
    assert copies.shape[0] == 3 * 4
    assert not torch.equal(*copies.chunk(3)[:2])


def test_a_resumed_run_draws_as_the_uninterrupted_one(ran, tmp_path):
    again = Run(tmp_path / "again")
    shutil.copytree(ran.run.checkpoints / "checkpoint-2", again.checkpoints / "checkpoint-2")
    shutil.copy(ran.run.record, again.record)
    assert again(ran.spec) == again.adapter
    assert [step.loss for step in again.of(Step)] == [step.loss for step in ran.run.of(Step)][2:]
    for name, tensor in ran.run.weights().items():
        assert torch.equal(tensor, again.weights()[name]), name


def test_on_a_4_bit_base_in_batches_without_padding(tiny, studio_home, tmp_path):
    stage = {"packing": True}
    done = train(tiny(), sums(tmp_path), tmp_path / "run", METHOD, stage=stage, quantization={"kind": "nf4"})
    assert (logits(done.reloaded()) - logits(done.plain())).abs().max() > 1e-3
    assert json.loads((done.run.adapter / "studio.json").read_text())["method"] == "adamix"

import subprocess
import sys

import pytest

from studio.engine.fit import Machine, estimate, takes_fast_path
from studio.engine.fit.estimate import judged
from studio.hardware import Hardware
from studio.specs import TrainSpec, parse

GIB = 1024**3
CPU = Hardware(cores=2, memory_gib=24, bf16=True)
GPU = Hardware(cores=8, memory_gib=64, gpu="a GPU", gpu_memory_gib=24, bf16=True)


def fit(free=64 * GIB, hardware=CPU, fast=None, **values):
    return estimate(parse(TrainSpec, values), machine=Machine(hardware, free), fast=fast)


def test_the_verdict_leaves_a_margin_for_the_estimate():
    assert [judged(needed, 100) for needed in (85, 86, 100, 101)] == ["fits", "tight", "tight", "does not fit"]


def test_the_bundled_model_is_added_up_before_it_is_here(studio_home):
    found = fit(quantization={"kind": "none"}, data={"max_length": 128})
    assert found.parts.weights == 2 * 134_515_008
    assert found.parts.adapter == 4 * 4_884_480
    assert found.parts.optimizer == 8 * 4_884_480
    assert found.needed == sum(getattr(found.parts, name) for name in found.parts.names())
    assert (found.verdict, found.change) == ("fits", None)


def test_a_quantised_base_is_smaller_though_its_file_stays_in_view(studio_home):
    none, nf4 = fit(quantization={"kind": "none"}).parts, fit(quantization={"kind": "nf4"}).parts
    assert nf4.weights < none.weights / 2
    assert nf4.needed == nf4.resident - nf4.mapped < none.needed
    assert fit(hardware=GPU).parts.mapped == 0


def test_what_does_not_fit_comes_with_a_change_after_which_it_does(studio_home):
    most = 4 * GIB
    found = fit(most, fast=False, training={"batch_size": 32, "accumulation": 2})
    assert found.verdict == "does not fit"
    changed = {path.partition(".")[2]: value for path, value in found.change.fields.items()}
    again = fit(most, fast=False, training={"batch_size": 32, "accumulation": 2, **changed})
    assert again.verdict == "fits"
    assert again.needed == found.change.needed
    assert "Set training." in str(found.change)


def test_the_fast_path_and_recomputing_need_less(studio_home):
    off, on = {"gradient_checkpointing": "off"}, {"gradient_checkpointing": "on"}
    assert fit(fast=True, training=off).parts.activations < fit(fast=False, training=off).parts.activations
    assert fit(training=on).parts.activations < fit(training=off).parts.activations


def test_gradients_count_beside_activations_where_a_step_takes_several_batches(studio_home):
    full = {"method": {"kind": "full"}, "quantization": {"kind": "none"}, "data": {"max_length": 16}}
    whole = 4 * 134_515_008
    assert fit(training={"accumulation": 2}, fast=False, **full).parts.gradients == whole
    alone = fit(training={"accumulation": 1}, fast=False, **full).parts
    assert alone.gradients == max(0, whole - alone.activations - alone.logits) < whole


def test_a_gpu_counts_its_own_memory_and_choices(studio_home):
    found = fit(hardware=GPU)
    assert (found.setting.optimizer, found.setting.checkpointing) == ("paged_adamw_8bit", False)
    assert found.parts.optimizer < 3 * 4_884_480


@pytest.mark.parametrize(
    ("values", "fast"),
    [
        ({}, True),
        ({"stage": {"kind": "pretrain"}}, True),
        ({"method": {"rslora": True}}, True),
        ({"method": {"dropout": 0.1}}, True),
        ({"method": {"kind": "full"}, "quantization": {"kind": "none"}}, True),
        ({"stage": {"kind": "dpo"}}, False),
        ({"stage": {"kind": "sft", "label_smoothing": 0.1}}, False),
        ({"stage": {"kind": "sft", "neftune_noise_alpha": 5}}, False),
        ({"method": {"kind": "prompt_tuning"}, "quantization": {"kind": "none"}}, False),
        ({"method": {"kind": "adalora"}}, False),
        ({"method": {"target_modules": ["lm_head"]}}, False),
        ({"trainer": {"torch_compile": True}}, False),
        ({"trainer": {"adam_beta2": 0.95}}, True),
    ],
)
def test_what_the_spec_says_decides_on_the_fast_path(values, fast):
    assert takes_fast_path(parse(TrainSpec, values)) is fast


@pytest.mark.parametrize("kind", ["dpo", "orpo", "kto", "reward", "grpo"])
def test_every_stage_is_estimated(studio_home, kind):
    assert fit(stage={"kind": kind}).needed > GIB // 2


def test_nothing_of_torch_is_imported_for_it():
    code = "import studio.engine.fit, studio.jobs.needs, sys; print([n for n in ('torch', 'peft') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

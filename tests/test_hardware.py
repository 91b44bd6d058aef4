"""What "auto" means on which machine."""

import pytest

from studio.hardware import Hardware, choices, detect, keep_gain, measured_gain, thread_environment
from studio.specs import TrainSpec, parse
from studio.specs.abilities import table

CPU = Hardware(cores=2, memory_gib=24, bf16=True)
OLD_CPU = Hardware(cores=4, memory_gib=8)
SLOW_BF16_CPU = Hardware(cores=2, memory_gib=24, bf16=True, bf16_gain=0.5)
GPU = Hardware(cores=8, memory_gib=64, gpu="NVIDIA RTX 4090", gpu_memory_gib=24, bf16=True)
OLD_GPU = Hardware(cores=8, memory_gib=64, gpu="Tesla T4", gpu_memory_gib=16)


def values(hardware, **training):
    return {
        field: choice.value for field, choice in choices(parse(TrainSpec, {"training": training}), hardware).items()
    }


@pytest.mark.parametrize(
    ("hardware", "precision", "optimizer", "checkpointing"),
    [
        (CPU, "bf16", "adamw_torch", "off"),
        (OLD_CPU, "fp32", "adamw_torch", "off"),
        (SLOW_BF16_CPU, "fp32", "adamw_torch", "off"),
        (GPU, "bf16", "paged_adamw_8bit", "off"),
        (OLD_GPU, "fp16", "paged_adamw_8bit", "off"),
    ],
)
def test_auto_is_what_the_machine_can_do(hardware, precision, optimizer, checkpointing):
    assert values(hardware) == {
        "model.dtype": precision,
        "training.precision": precision,
        "training.optimizer": optimizer,
        "training.gradient_checkpointing": checkpointing,
    }


def test_what_the_spec_sets_is_kept_and_every_choice_has_a_reason():
    assert values(GPU, optimizer="sgd", precision="fp32")["training.optimizer"] == "sgd"
    assert all(choice.why for choice in choices(TrainSpec(), OLD_GPU).values())


def test_a_step_that_cannot_be_divided_recomputes_on_a_gpu_from_the_start():
    stage = {"kind": "grpo", "rewards": ["exact_match"]}
    assert choices(parse(TrainSpec, {"stage": stage}), GPU)["training.gradient_checkpointing"].value == "on"


def test_the_measured_speed_of_bf16_decides_on_this_very_cpu(studio_home, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    keep_gain(0.7)
    assert measured_gain() == 0.7 and detect().bf16_gain == 0.7
    monkeypatch.setattr("studio.hardware._cpu_name", lambda: "another one")
    assert measured_gain() is None and detect().bf16_gain in (0.5, 2.0)


def test_weights_and_arithmetic_go_together_where_one_of_them_is_set():
    assert values(SLOW_BF16_CPU, precision="bf16")["model.dtype"] == "bf16"
    chosen = choices(parse(TrainSpec, {"model": {"dtype": "bf16"}}), SLOW_BF16_CPU)
    assert chosen["training.precision"].value == "bf16"


def test_full_fine_tuning_keeps_its_weights_in_fp32():
    chosen = choices(parse(TrainSpec, {"method": {"kind": "full"}, "quantization": {"kind": "none"}}), GPU)
    assert chosen["model.dtype"].value == "fp32" and chosen["training.precision"].value == "bf16"


def test_a_method_that_cannot_recompute_activations_goes_without_checkpointing():
    kinds = [name for name, can in table().items() if not can.checkpointing and "," not in name]
    assert kinds
    for kind in kinds:
        spec = parse(TrainSpec, {"method": {"kind": kind}, "quantization": {"kind": "none"}})
        assert choices(spec, GPU)["training.gradient_checkpointing"].value == "off", kind


def test_a_hidden_gpu_is_not_used(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert detect().device == "cpu" and detect().cores >= 1 and detect().memory_gib > 0


def test_threads_sleep_while_they_wait_unless_the_user_says_otherwise(monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert thread_environment() == {"OMP_WAIT_POLICY": "PASSIVE"}
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert thread_environment() == thread_environment(spins=9) == {"OMP_WAIT_POLICY": "ACTIVE"}


def test_threads_of_a_worker_look_for_work_a_while_before_they_sleep(monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    assert thread_environment(spins=9) == {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "9"}
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    assert thread_environment(spins=9)["GOMP_SPINCOUNT"] == "7"

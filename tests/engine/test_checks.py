"""What is refused before a model loads, and how it is said."""

import json
from importlib.machinery import ModuleSpec

import pytest
from transformers import TrainingArguments
from trl import DPOConfig, GRPOConfig, SFTConfig

from studio.engine import checks
from studio.engine.checks import check_alone, check_with_base, with_extra
from studio.engine.extra import OURS, REFUSED, read_extra
from studio.engine.models.quantised import SCHEMES
from studio.errors import SpecError
from studio.hardware import Hardware, choices
from studio.specs import TrainSpec, load, parse
from studio.specs.abilities import table

CPU = Hardware(cores=2, memory_gib=24, bf16=True)
OLD_CPU = Hardware(cores=2, memory_gib=24)
OLD_GPU = Hardware(cores=8, memory_gib=64, gpu="Tesla T4", gpu_memory_gib=16)


def spec(**sections):
    return parse(TrainSpec, {"quantization": {"kind": "none"}, **sections})


def alone(machine=CPU, config=SFTConfig, **sections):
    wanted = spec(**sections)
    return [str(fault) for fault in check_alone(wanted, machine, choices(wanted, machine), config)]


@pytest.fixture
def base(tmp_path):
    """A folder that holds a config alone."""

    def make(**config):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", **config}))
        return tmp_path

    return make


def with_base(folder, **sections):
    return [str(fault) for fault in check_with_base(spec(**sections), folder, CPU, fresh=False)]


@pytest.mark.parametrize("value", [0, -1e-4, float("nan"), float("inf"), "none"])
def test_f48_a_learning_rate_that_is_no_positive_number_is_refused(value):
    with pytest.raises(SpecError, match=r"training\.learning_rate: must be"):
        spec(training={"learning_rate": value})


def test_f48_a_learning_rate_that_is_written_as_text_is_read_as_a_number(tmp_path):
    (tmp_path / "spec.yaml").write_text("training: {learning_rate: '2e-4'}")
    assert load(tmp_path / "spec.yaml").training.learning_rate == 2e-4
    (tmp_path / "spec.yaml").write_text("training: {learning_rate: 2e-4}")  # text to YAML 1.1, which wants 2.0e-4
    assert load(tmp_path / "spec.yaml").training.learning_rate == 2e-4


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *((name, value) for name in ("batch_size", "accumulation", "epochs") for value in (0, -1)),
        ("max_steps", 0),
        ("max_grad_norm", -1),
    ],
)
def test_f49_and_f50_what_the_libraries_would_take_and_train_nothing_with_is_refused(field, value):
    with pytest.raises(SpecError, match=rf"training\.{field}: must be (at least|above) \d"):
        spec(training={field: value})


def test_f49_and_f50_all_wrong_fields_are_told_together():
    with pytest.raises(SpecError) as error:
        spec(training={"batch_size": 0, "epochs": -1, "learning_rate": "fast"})
    assert len(error.value.faults) == 3


@pytest.mark.parametrize("config", [{"max_position_embeddings": 128}, {"n_positions": 128}])
def test_f51_a_cutoff_beyond_the_positions_names_the_models_number(base, config):
    (said,) = with_base(base(**config), data={"max_length": 129})
    assert said.startswith("data.max_length: is 129, but") and "128 positions" in said
    assert with_base(base(**config), data={"max_length": 128}) == []


def test_f51_virtual_tokens_count_as_positions_too(base):
    method = {"kind": "prompt_tuning", "virtual_tokens": 20}
    (said,) = with_base(base(max_position_embeddings=128), data={"max_length": 120}, method=method)
    assert said.startswith("method.virtual_tokens: and data.max_length are 140 together")


@pytest.mark.parametrize(
    ("machine", "precision", "said"),
    [
        (CPU, "fp16", "training.precision: fp16 needs a GPU. Set it to auto, bf16 or fp32."),
        (OLD_CPU, "bf16", "training.precision: this CPU has no bf16 arithmetic. Set it to auto or fp32."),
        (OLD_GPU, "bf16", "training.precision: Tesla T4 has no bf16. Set it to auto, fp16 or fp32."),
    ],
)
def test_f52_a_precision_that_the_machine_lacks_names_what_works(machine, precision, said):
    assert alone(machine, training={"precision": precision, "optimizer": "adamw_torch"}) == [said]


def test_missing_packages_are_told_together_with_one_command(monkeypatch):
    monkeypatch.setattr(checks, "find_spec", lambda name: None)
    said = alone(
        quantization={"kind": "nf4"},
        training={"report_to": ["wandb", "mlflow"], "optimizer": "paged_adamw_8bit"},
        trainer={"use_liger_kernel": True},
    )
    command = "pip install bitsandbytes liger-kernel mlflow wandb"
    assert all(each.endswith(f"which is not installed. Run: {command}") for each in said)
    assert [each.split(":")[0] for each in said] == [
        "training.report_to",
        "training.report_to",
        "training.optimizer",
        "quantization.kind",
        "trainer.use_liger_kernel",
    ]


def test_what_is_installed_is_not_missing(monkeypatch):
    monkeypatch.setattr(checks, "find_spec", lambda name: ModuleSpec(name, None) if name == "tensorboardX" else None)
    assert alone(training={"report_to": ["tensorboard"]}) == []


def extra(values, config=SFTConfig, **stage):
    return read_extra(values, config, spec(stage=stage).stage if stage else spec().stage)


def test_extra_arguments_are_read_as_the_trainer_takes_them():
    values = {"adam_beta2": "0.95", "lr_scheduler_kwargs": {"min_lr": 1e-6}, "eval_accumulation_steps": "2"}
    read, faults = extra(values)
    assert faults == [] and read == {**values, "adam_beta2": 0.95, "eval_accumulation_steps": 2}
    assert with_extra(spec(trainer={"adam_epsilon": "1e-6"}), SFTConfig).trainer == {"adam_epsilon": 1e-6}


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("adam_beat2", 0.9, "Unknown argument 'adam_beat2'. Did you mean 'adam_beta2'?"),
        ("adam_beta1", "much", "input should be a valid number"),
        ("torch_empty_cache_steps", 0, "must be an integer bigger than 0, got 0."),
        ("hub_token", "secret", "would send things away."),
        ("push_to_hub", True, "would send things away."),
        ("resume_from_checkpoint", "x", "resume the run"),
        ("deepspeed", "ds.json", "several devices"),
        ("fsdp", "full_shard", "several devices"),
        ("save_only_model", True, "resumed run"),
        ("trust_remote_code", True, "run code"),
        ("logging_steps", 10, "each step is told"),
    ],
)
def test_wrong_or_dangerous_extra_arguments_are_refused(name, value, said):
    _, (fault,) = extra({name: value})
    assert fault.field == f"trainer.{name}" and said in fault.reason
    assert "secret" not in fault.reason


def test_an_argument_with_a_field_of_its_own_names_that_field():
    assert "Set training.learning_rate instead" in extra({"learning_rate": 1})[1][0].reason
    assert "Set stage.packing instead" in extra({"packing": True})[1][0].reason
    assert extra({"loss_type": "dft"})[1] == [], "sft has no field for it"
    assert "Set stage.loss instead" in extra({"loss_type": "ipo"}, DPOConfig, kind="dpo")[1][0].reason
    assert "Set stage.generations instead" in extra({"num_generations": 8}, GRPOConfig, kind="grpo")[1][0].reason


def test_every_field_that_is_named_as_the_remedy_is_a_field_of_the_spec():
    known = {f"{name}.{field}" for name in TrainSpec.model_fields for field in _fields(name)}
    assert set(OURS.values()) <= known


def _fields(section):
    return getattr(type(getattr(TrainSpec(), section)), "model_fields", ())


def test_what_the_lists_name_is_there_in_some_config():
    known = {name for config in (TrainingArguments, SFTConfig, DPOConfig) for name in config.__dataclass_fields__}
    assert set(OURS) | set(REFUSED) <= known | {"warmup_ratio"}


def test_a_base_that_is_quantised_already_is_taken_as_it_is(base, monkeypatch):
    monkeypatch.setattr(checks, "find_spec", lambda name: ModuleSpec(name, None))
    folder = base(quantization_config={"quant_method": "hqq"})
    (said,) = with_base(folder, quantization={"kind": "nf4"})
    assert said.startswith("quantization.kind: is nf4, but") and "Set it to none" in said
    assert with_base(folder, quantization={"kind": "none"}) == []
    (said,) = with_base(folder, method={"kind": "loha"})
    assert said == "method.kind: loha cannot train on a base quantised by hqq. Set it to plain lora."


@pytest.mark.parametrize("name", SCHEMES)
def test_a_quantised_base_whose_library_is_missing_names_it(base, monkeypatch, name):
    monkeypatch.setattr(checks, "find_spec", lambda name: None)
    said = with_base(base(quantization_config={"quant_method": name}))
    wanted = [pip for _, pip in SCHEMES[name].packages]
    assert len(said) == len(wanted) and all(f"pip install {' '.join(sorted(wanted))}" in each for each in said)


def test_a_base_that_nothing_trains_on_is_refused(base):
    (said,) = with_base(base(quantization_config={"quant_method": "mxfp4"}))
    assert said.startswith("model.name:") and "is quantised by mxfp4, which adapters do not train on" in said


@pytest.mark.parametrize(("bits", "column"), [(4, "nf4"), (8, "int8")])
def test_a_base_that_bitsandbytes_quantised_takes_the_methods_that_train_on_such(base, bits, column):
    folder = base(quantization_config={"quant_method": "bitsandbytes", f"load_in_{bits}bit": True})
    assert with_base(folder) == []
    kinds = [name for name in table() if "," not in name and name != "full"]
    unable = [kind for kind in kinds if not getattr(table()[kind], column)]
    said = {kind: with_base(folder, method=_method(kind)) for kind in kinds}
    assert unable and [kind for kind in kinds if said[kind]] == unable


def _method(kind):
    return {"kind": kind} | ({"train_tokens": ["x"]} if kind == "trainable_tokens" else {})

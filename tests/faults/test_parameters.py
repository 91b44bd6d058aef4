"""The faults of parameters, by their number in the fault matrix: a file, --set or Python, refused with the field."""

import pytest

from studio import specs
from studio.errors import SpecError
from studio.events import Phase
from studio.hardware import Hardware
from studio.home import home
from studio.specs import TrainSpec, parse
from tests.engine.test_train import spec

BASE = ("train", "--set", "data.datasets=identity-en")


def jobs():
    return [path for path in home().jobs.iterdir() if path.is_dir()]


@pytest.mark.parametrize("value", ["0", "-1e-4", ".nan", ".inf", "-.inf", "nan", "inf", "fast", "1e400", "[1]"])
def test_f48_a_learning_rate_that_is_no_positive_number_is_refused(shell, value):
    status, out, err = shell(*BASE, "--set", f"training.learning_rate={value}")
    assert (status, out) == (1, "") and err.startswith("training.learning_rate: must be")
    assert jobs() == []


@pytest.mark.parametrize("value", ["'2e-4'", "2e-4", "2.0e-4", "0.0002", "' 2e-4 '"])
def test_f48_one_that_is_written_as_text_is_read_as_a_number(shell, value):
    status, _, _ = shell(*BASE, "--set", f"training.learning_rate={value}")
    (folder,) = jobs()
    assert status == 0 and specs.load(folder / "spec.yaml").training.learning_rate == 2e-4
    assert parse(TrainSpec, {"training": {"learning_rate": "2e-4"}}).training.learning_rate == 2e-4


@pytest.mark.parametrize("field", ["batch_size", "accumulation"])
@pytest.mark.parametrize("value", ["0", "-1", "1.5", ".nan"])
def test_f49_batch_and_accumulation_are_whole_and_positive(shell, field, value):
    status, _, err = shell(*BASE, "--set", f"training.{field}={value}")
    assert status == 1 and err.startswith(f"training.{field}: must be")
    assert jobs() == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("epochs", value) for value in ("0", "-1", ".inf")),
        *(("max_steps", value) for value in ("0", "-1")),
        *(("max_grad_norm", value) for value in ("-1", ".nan")),
    ],
)
def test_f50_what_the_libraries_would_take_is_refused(shell, field, value):
    status, _, err = shell(*BASE, "--set", f"training.{field}={value}")
    assert status == 1 and err.startswith(f"training.{field}: must be")
    assert jobs() == []


def test_f50_all_that_is_wrong_with_a_file_is_told_at_once(shell, tmp_path):
    (tmp_path / "run.yaml").write_text("training: {learning_rate: 0, batch_size: -1, epochs: 0, max_grad_norm: -1}")
    _, _, err = shell("train", str(tmp_path / "run.yaml"))
    fields = ("learning_rate", "batch_size", "epochs", "max_grad_norm")
    assert sorted(line.split(":")[0] for line in err.splitlines()) == sorted(f"training.{name}" for name in fields)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_f51_a_cutoff_beyond_the_positions_names_the_models_number_before_it_loads(tiny, dataset, run, kind):
    with pytest.raises(SpecError, match=r"data\.max_length: is 513, but .* has 512 positions\. Lower it to that\."):
        run(spec(tiny(kind), dataset, data={"max_length": 513}))
    assert "load" not in [event.name for event in run.of(Phase)]


@pytest.mark.parametrize(
    ("machine", "named"),
    [
        (Hardware(cores=2, memory_gib=24), "this CPU has no bf16 arithmetic. Set it to auto or fp32."),
        (Hardware(cores=2, memory_gib=24, gpu="Tesla T4", gpu_memory_gib=16), "Set it to auto, fp16 or fp32."),
    ],
    ids=["CPU", "GPU"],
)
def test_f52_bf16_where_it_is_not_supported_names_what_is(tiny, dataset, run, monkeypatch, machine, named):
    monkeypatch.setattr("studio.hardware.detect", lambda: machine)
    values = {"precision": "bf16", "optimizer": "adamw_torch"}
    with pytest.raises(SpecError) as refused:
        run(spec(tiny(), dataset, training=values))
    (fault,) = refused.value.faults
    assert fault.field == "training.precision" and fault.reason.endswith(named)
    assert "load" not in [event.name for event in run.of(Phase)]

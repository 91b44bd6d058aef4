import json

import pytest

from studio import cli


def told(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        cli.main(["estimate", *arguments])
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_parts_verdict_disk_and_time_are_printed(studio_home, capsys):
    out = told(capsys, "--preset", "identity")
    for word in ("activations", "optimiser", "GiB free", "largest batch: ", "disk: ", "time: not known"):
        assert word in out


def test_json_holds_everything(studio_home, capsys):
    found = json.loads(
        told(capsys, "--set", "training.batch_size=4096", "--set", "stage.neftune_noise_alpha=5", "--json")
    )
    parts = found["parts"]
    assert found["needed"] == sum(size for name, size in parts.items() if name not in ("mapped", "unpacked"))
    assert found["verdict"] == "does not fit"
    assert found["batch"]["rows"] == 4096
    assert found["advice"].startswith("Set ")


def test_a_file_and_changes_are_taken_as_train_takes_them(studio_home, tmp_path, capsys):
    path = tmp_path / "spec.yaml"
    path.write_text("training: {batch_size: 3}")
    found = json.loads(
        told(capsys, str(path), "--set", "data.max_length=64", "--set", "training.accumulation=1", "--json")
    )
    assert found["batch"]["length"] == 192

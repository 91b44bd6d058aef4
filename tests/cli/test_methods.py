"""`studio methods` and `studio stages`: every kind with what it can do, what it costs, and its fields."""

import json

import pytest

from studio.cli.methods import limits, size
from studio.specs import kinds
from tests.cli.test_cli import run


@pytest.fixture(autouse=True)
def fresh(studio_home):
    return studio_home


def test_every_method_is_listed_with_what_it_can_do(capsys):
    status, out, _ = run(capsys, "methods", "list")
    lines = out.splitlines()
    assert status == 0 and [line.split()[0] for line in lines[1:]] == list(kinds("method"))
    assert "nf4 int8 merge mixed packing checkpointing" in lines[1]


def test_with_a_model_each_method_tells_what_it_trains_of_it(capsys):
    status, out, _ = run(capsys, "methods", "list", "--model", "smollm2-135m-instruct")
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert status == 0 and "4,884,480    3.5 %       19.5 MB" in lines["lora"]
    assert "has none. Use ln_tuning or lora." in lines["bitfit"]
    status, out, _ = run(capsys, "methods", "list", "--model", "smollm2-135m-instruct", "--json")
    found = {each["kind"]: each for each in json.loads(out)}
    assert found["full"]["share"] == 1 and found["lora"]["bytes_on_disk"] == 19_537_920
    assert found["bitfit"]["faults"] and found["lora"]["can"]["merge"] is True


def test_a_model_that_is_unknown_is_refused(capsys):
    status, _, err = run(capsys, "methods", "list", "--model", "smollm2-135m-instuct")
    assert status == 1 and "Did you mean 'smollm2-135m-instruct'" in err


@pytest.mark.parametrize("section", ["methods", "stages"])
def test_show_tells_every_field_with_its_default_limits_and_help(capsys, section):
    for kind, cls in kinds(section.removesuffix("s")).items():
        status, out, _ = run(capsys, section, "show", kind, "--json")
        found = json.loads(out)
        assert status == 0 and [each["name"] for each in found["fields"]] == list(cls.model_fields)[1:]
        assert all(each["help"] for each in found["fields"])
    status, out, _ = run(capsys, "methods", "show", "lora")
    assert ["rank", "16", "1", "to", "4096"] in [
        line.split()[:5] for line in out.splitlines()
    ] and "can: nf4 int8" in out


def test_stages_are_listed(capsys):
    status, out, _ = run(capsys, "stages", "list")
    assert status == 0 and [line.split()[0] for line in out.splitlines()[1:]] == list(kinds("stage"))
    assert json.loads(run(capsys, "stages", "list", "--json")[1])[0]["kind"] == "pretrain"


def test_an_unknown_kind_is_refused_with_the_nearest(capsys):
    status, _, err = run(capsys, "methods", "show", "lorra")
    assert status == 1 and "Unknown method 'lorra'. Did you mean 'lora'?" in err
    assert "Unknown stage 'sfd'" in run(capsys, "stages", "show", "sfd")[2]


def test_limits_are_read_from_the_schema():
    assert limits({"type": "integer", "minimum": 1, "maximum": 16}) == "1 to 16"
    assert limits({"type": "number", "exclusiveMinimum": 0, "maximum": 5}) == "above 0, up to 5"
    assert limits({"anyOf": [{"type": "number", "minimum": 1, "maximum": 9}, {"type": "null"}]}) == "1 to 9, or empty"
    assert limits({"anyOf": [{"type": "string"}, {"type": "null"}]}) == "or empty"
    assert limits({"type": "array", "items": {"enum": ["a", "b"]}}) == "list: a, b"


def test_sizes_are_written_for_people():
    assert [size(count) for count in (12, 46_080, 19_537_920, 538_060_032, 2_000_000_000)] == [
        "12 bytes",
        "46.1 kB",
        "19.5 MB",
        "538 MB",
        "2 GB",
    ]

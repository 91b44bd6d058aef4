"""Names and paths in every function and event of the page, sent raw: nothing outside STUDIO_HOME is read or written.

A dropdown checks nothing that is sent past it, and a private event is private by its name only.
"""

import json
from itertools import pairwise

import pytest

from studio.home import home
from tests.faults.intruder import API, MARKER, until

HOSTILE_NAMES = [
    "../outside/secret", "../../outside", "..", ".", "/etc/passwd", "/var/escaped", "a/../../escaped", "..\\escaped",
    "~root", "CON", "-rf", "a;rm -rf ~", "$(id)", "`id`", "a\0b", "a\n", "x" * 300, "．．/escaped", "%2e%2e%2fescaped",
    "http://127.0.0.1:9/x", "file:///etc/passwd", "",
]  # fmt: skip
NO_NAMES = [
    None,
    7,
    1.5,
    True,
    [],
    ["../outside/secret"],
    {},
    {"path": "/etc/passwd"},
    {"path": "http://127.0.0.1:9/x"},
]

FETCHES = {"template_fetch"}
"""Fetches the default model, whatever it is sent."""


@pytest.fixture
def unchanged(intruder):
    """Nothing beside STUDIO_HOME changes, and in it nothing gets a name that is none."""
    before = intruder.everything_outside()
    yield
    assert intruder.everything_outside() == before
    for folder in (home().jobs, home().datasets, home().exports, home().path / "templates"):
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        assert all(name.isascii() and ".." not in name and name[0] not in "-~$`" for name in names), names


def no_leak(told):
    assert MARKER not in told.text and "root:x:" not in told.text
    assert "Traceback" not in told.text and 'File "/' not in told.text


@pytest.mark.parametrize("function", ["job", "stop_job", "resume_job", "start_training"])
def test_f22_no_public_function_takes_a_name_that_is_none(intruder, unchanged, function):
    for name in HOSTILE_NAMES + NO_NAMES:
        told = intruder.call(function, name)
        assert not told.success, name
        no_leak(told)
        assert "Something went wrong" not in told.text, (name, told.text)


SPECS = [
    "data: {{datasets: [{}]}}",
    "data: {{datasets: [identity-en]}}\nmodel: {{name: {}}}",
    "data: {{datasets: [identity-en]}}\noutput: {{name: {}}}",
    "data: {{datasets: [identity-en]}}\nstart: {{adapters: [{}]}}",
    "data: {{datasets: [identity-en]}}\nstage: {{kind: grpo, rewards: [model], reward_model: {}}}",
    "data: {{datasets: [identity-en]}}\ntrainer: {{output_dir: {}}}",
]


@pytest.mark.parametrize("form", SPECS)
def test_f22_no_name_in_a_spec_leads_out(intruder, unchanged, form):
    for name in HOSTILE_NAMES[::3]:
        told = intruder.call("start_training", form.format(json.dumps(name)))
        no_leak(told)
        for view in json.loads(intruder.call("list_jobs").text)[0]:
            assert home().jobs / view["id"] == (home().jobs / view["id"]).resolve()


@pytest.mark.parametrize(
    "spec",
    [
        "data: !!python/object/apply:os.system ['touch escaped']",
        "data: &a [*a]",
        "trainer:\n  a: &a [1,1,1,1,1,1,1,1,1]\n"
        + "".join(f"  {b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in pairwise("abcdefgh")),
        "trainer: " + "[" * 2000 + "]" * 2000,
        "training: {max_steps: " + "9" * 5000 + "}",
    ],
    ids=["code", "itself", "bomb", "deep", "digits"],
)
def test_f20_a_spec_that_unfolds_or_runs_is_refused_at_once(intruder, unchanged, spec):
    told = intruder.call("start_training", spec)
    assert not told.success and "is not valid YAML" in told.text
    no_leak(told)


def events(intruder, value):
    """Every event of the page with a value in each field, and in what it says was clicked."""
    config = intruder.config()
    states = {each["id"] for each in config["components"] if each["type"] == "state"}
    clicked = dict.fromkeys(("show", "remedy", "name", "value", "key", "file"), value)
    return [
        {
            "fn_index": each["id"],
            "data": [None if widget in states else value for widget in each["inputs"]],
            "event_data": clicked | {"index": 0, "selected": True},
        }
        for each in config["dependencies"]
        if each["api_name"] not in FETCHES and each["backend_fn"]
    ]


@pytest.mark.parametrize("value", ["../outside/secret", "a\0b", {"path": "/etc/passwd"}, -1])
def test_f22_no_event_of_the_page_reads_or_writes_outside(intruder, unchanged, value):
    fired = events(intruder, value)
    assert len(fired) > 90
    for told in intruder.fire(fired):
        no_leak(told)


@pytest.mark.parametrize(
    "file",
    [
        {"path": "/etc/passwd"},
        {"path": "{world}/outside/secret.jsonl"},
        {"path": "{home}/run/uploads/../../../outside/secret.jsonl"},
        {"path": "{home}/jobs/../run/ui.log"},
        {"path": "http://127.0.0.1:9/x.jsonl"},
        {"path": "x.jsonl", "url": "http://127.0.0.1:9/x.jsonl"},
        {"path": "file:///etc/passwd"},
        {"path": "{world}/outside/secret.jsonl", "is_stream": True},
    ],
)
def test_f23_a_file_that_was_not_uploaded_is_not_taken(intruder, unchanged, file):
    file = {k: v.format(world=intruder.world, home=intruder.home) if isinstance(v, str) else v for k, v in file.items()}
    file |= {"meta": {"_type": "gradio.FileData"}, "orig_name": "rows.jsonl"}
    (told,) = intruder.fire([{"fn_index": intruder.number("data_upload"), "data": [[file], None, None]}])
    no_leak(told)
    assert not told.success


@pytest.mark.parametrize(
    "source",
    [
        "http://127.0.0.1:9/x.jsonl", "https://example.org/x.jsonl", "s3://bucket/x.jsonl", "file:///etc/passwd",
        "zip://x::y.zip", "hf://datasets/a/b", "/etc/passwd", "/proc/self/environ", "/dev/zero", "~/.ssh/id_rsa",
    ],
)  # fmt: skip
def test_f23_the_page_reads_no_address_and_no_file_of_another_kind(intruder, unchanged, source):
    (told,) = intruder.fire([{"fn_index": intruder.number("data_read"), "data": [source, None, None]}])
    no_leak(told)
    assert "problem" in told.text


@pytest.mark.parametrize("out", ["/var/escaped", "../escaped", "~/escaped", "a/b", "..", "-x", "CON", "x" * 300, "a\0",
                                 "{home}/jobs/x", "{home}/exports/../jobs/x", "{home}/exports/a/b"])  # fmt: skip
def test_f22_an_export_from_the_page_stays_in_exports(intruder, unchanged, out, run):
    data = [run, "adapter", "fp32", out.format(home=home().path)]
    session = "exporting"
    lists, start = intruder.number("export_lists"), intruder.number("export_start")
    intruder.fire([{"fn_index": lists, "data": [None, "adapter", "fp32"]}], session)
    (told,) = intruder.fire([{"fn_index": start, "data": data}], session)
    assert "cannot be a name of a folder in exports" in told.text
    assert all(view["kind"] != "export" for view in json.loads(intruder.call("list_jobs").text)[0])


@pytest.fixture(scope="module")
def run(intruder):
    """A finished run with an adapter."""
    started = json.loads(intruder.call("start_training", "data: {datasets: [identity-en]}").text)[0]["id"]
    folder = intruder.home / "jobs" / started
    (folder / "adapter").mkdir(exist_ok=True)
    until(lambda: json.loads(intruder.call("job", started).text)[0]["state"] == "finished")
    return started


def test_functions_of_components_are_the_chart_s_alone(intruder, unchanged, run):
    config = intruder.config()
    chart = next(each["id"] for each in config["components"] if each["props"].get("elem_id") == "train-chart")
    asked = {"run": run, "since": 0, "generation": 0, "figure": "", "status": "", "language": "en"}

    def ask(component, function, data):
        body = {"component_id": component, "fn_name": function, "session_hash": "x", "data": data}
        # a function that fails takes its connection with it
        return intruder.http.post(f"{API}/component_server", json=body, headers={"connection": "close"})

    assert ask(chart, "tail", asked).json()["step"] == 8
    for name in [*HOSTILE_NAMES[::4], *NO_NAMES]:
        for wrong in (
            asked | {"run": name},
            asked | {"since": name},
            asked | {"figure": name},
            asked | {"language": name},
            name,
        ):
            answer = ask(chart, "tail", wrong)
            assert answer.status_code in (200, 500) and MARKER not in answer.text and "Traceback" not in answer.text
    kinds = {each["type"]: each["id"] for each in config["components"]}
    assert len(kinds) > 15
    for component in kinds.values():
        for function in (
            "__init__", "__class__", "postprocess", "preprocess", "move_resource_to_block_cache", "get_config",
            "async_move_resource_to_block_cache", "load", "label",
        ):  # fmt: skip
            answer = ask(component, function, "/etc/passwd")
            assert answer.status_code in (404, 500), (component, function)
            assert "root:" not in answer.text and "Traceback" not in answer.text

"""Text of rows, files, runs and models that is markup: wherever the page shows it, it stays text."""

import json
import re

import pytest

from tests.faults.intruder import API, until
from tests.ui.markup import Tags
from tests.ui.recorded import HOSTILE

ATTACKS = [
    HOSTILE,
    "<script>document.title='taken over'</script>",
    "<svg/onload=alert(1)>",
    "</td></table></div><iframe src=javascript:alert(1)></iframe>",
    "\"><input autofocus onfocus='alert(1)'>",
    "[click](javascript:alert(1)) ![x](http://127.0.0.1:9/x.png)",
    "<style>*{display:none}</style><base href=//evil.example>",
    "&lt;img src=x onerror=alert(1)&gt;",
    "{{ 7 * 7 }}${alert(1)}",
]
STRANGERS = {"script", "svg", "iframe", "input", "img", "style", "base", "object", "embed", "link", "meta", "a"}


class Attributes(Tags):
    """The tags, and what could run in them."""

    def __init__(self, markup):
        self.running = []
        super().__init__(markup)

    def handle_starttag(self, tag, attrs):
        super().handle_starttag(tag, attrs)
        self.running += [
            (tag, name) for name, value in attrs if name.startswith("on") or "javascript:" in (value or "").lower()
        ]


def shown(intruder, name, told):
    """Every piece of markup that an event sends, by the widget that it is for."""
    config = intruder.config()
    widgets = {each["id"]: each for each in config["components"]}
    event = next(each for each in config["dependencies"] if each["api_name"] == name)
    assert told.success, told.text
    for widget, value in zip(event["outputs"], told.output["data"], strict=True):
        value = value.get("value") if isinstance(value, dict) else value
        props = widgets[widget]["props"]
        drawn = isinstance(value, str) and value.startswith(("{", "["))  # from JSON, by plotly or as text nodes
        if widgets[widget]["type"] == "html" and isinstance(value, str) and not drawn:
            yield props.get("elem_id"), value


def check(pieces):
    """All of them together as text, none with a tag or an attribute of the attack."""
    text = ""
    for place, markup in pieces:
        seen = Attributes(markup)
        assert not seen.running, (place, seen.running)
        assert not STRANGERS & set(seen.tags), (place, set(seen.tags))
        text += seen.text
    return text


def rows():
    yield from ({"instruction": attack, "output": f"answer {attack}"} for attack in ATTACKS)
    yield {"instruction": "", "output": ATTACKS[0]}
    yield {"instruction": {ATTACKS[0]: 1}, "output": ATTACKS[1]}


def opened(intruder, session, content, name="rows.jsonl"):
    (place,) = intruder.http.post(f"{API}/upload", files={"files": (name, content.encode())}).json()
    file = {"path": place, "orig_name": name, "meta": {"_type": "gradio.FileData"}}
    (told,) = intruder.fire([{"fn_index": intruder.number("data_upload"), "data": [[file], None, None]}], session)
    return told


def fire(intruder, session, name, *values):
    (told,) = intruder.fire([{"fn_index": intruder.number(name), "data": list(values)}], session)
    return told


def test_rows_in_the_preview_and_in_the_browser_of_rows(intruder):
    content = "".join(json.dumps(each) + "\n" for each in rows())
    text = check(shown(intruder, "data_upload", opened(intruder, "rows", content)))
    for attack in ATTACKS[:4]:
        assert attack in text
    told = fire(intruder, "rows", "data_register", None, "hostile")
    text = check(shown(intruder, "data_register", told))
    told = fire(intruder, "rows", "data_view", None, "file")
    text += check(shown(intruder, "data_view", told))
    assert ATTACKS[1] in text
    text = check(shown(intruder, "data_search", fire(intruder, "rows", "data_search", None, "<script>")))
    assert ATTACKS[1] in text
    text = check(shown(intruder, "data_search", fire(intruder, "rows", "data_search", None, "<img src=q>nowhere")))
    assert "<img src=q>nowhere" in text


def test_broken_rows_with_the_text_that_could_not_be_read(intruder):
    content = (
        "".join(f'{{"instruction": {attack}\n' for attack in ATTACKS) + '{"instruction": "a", "output": "b"}\n' * 20
    )
    text = check(shown(intruder, "data_upload", opened(intruder, "broken", content)))
    assert "is not valid JSON" in text and ATTACKS[1] in text


def test_columns_and_labels(intruder):
    column = ATTACKS[1]
    content = "".join(json.dumps({column: attack, "label": attack, "text": "x"}) + "\n" for attack in ATTACKS * 3)
    text = check(shown(intruder, "data_upload", opened(intruder, "columns", content)))
    assert column in text
    check(shown(intruder, "data_format", fire(intruder, "columns", "data_format", None, "classification")))


@pytest.mark.parametrize(
    "name", ["<img src=x onerror=alert(1)>.jsonl", "a&b<script>.jsonl", "'\"><svg onload=x>.jsonl"]
)
def test_names_of_files(intruder, name):
    check(shown(intruder, "data_upload", opened(intruder, "names", '{"instruction": "a", "output": "b"}\n', name)))


def test_what_a_run_tells(intruder):
    started = json.loads(intruder.call("start_training", "data: {datasets: [identity-en]}").text)[0]["id"]
    until(lambda: json.loads(intruder.call("job", started).text)[0]["state"] == "finished")
    fire(intruder, "run", "load_5")
    intruder.fire([{"fn_index": each["id"], "data": []} for each in intruder.config()["dependencies"]
                   if re.fullmatch(r"load_\d+", each["api_name"] or "") and not each["inputs"]], "run")  # fmt: skip
    told = fire(intruder, "run", "train_choose", started)
    assert HOSTILE in check(shown(intruder, "train_choose", told))


def test_what_somebody_types_comes_back_as_text(intruder):
    for name, values in (("data_read", ["<img src=x onerror=alert(1)>"]), ("data_fetch", ["<svg onload=x>", "", ""])):
        told = fire(intruder, "typed", name, *values, None, None)
        text = check(shown(intruder, name, told))
        assert values[0] in text
    for name in ("job", "stop_job", "resume_job"):
        told = intruder.call(name, "<img src=x onerror=alert(1)>")
        assert "<img" not in told.text and "&lt;img" in told.text

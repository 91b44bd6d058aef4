"""Rows that were tokenised before: found only where they would be the very same, whole, and within bounds."""

import json
import os
from dataclasses import replace

import pytest

from studio.data import registry
from studio.engine.rows import cache
from studio.home import home
from studio.specs import TrainSpec, parse
from studio.templates import TextTokenizer, load


@pytest.fixture
def place(tmp_path, studio_home):
    """place() -> a new folder with two files, as a run leaves them."""

    def make(name="run", text="train"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "train.arrow").write_text(text)
        (folder / "held.arrow").write_text("held")
        return folder

    return make


@pytest.fixture
def empty(tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    return folder


def entries():
    return sorted(path.name for path in (home().cache / "rows").iterdir())


def test_what_was_kept_is_found_again_with_its_facts(place, empty):
    cache.keep("one", place(), {"counts": 3})
    assert cache.fetch("one", empty) == {"counts": 3}
    assert {path.name: path.read_text() for path in empty.iterdir()} == {"train.arrow": "train", "held.arrow": "held"}
    assert cache.fetch("two", empty) is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda entry: (entry / "train.arrow").write_text("trai"),
        lambda entry: (entry / "train.arrow").write_text("trbin"),
        lambda entry: (entry / "held.arrow").unlink(),
        lambda entry: (entry / "manifest.json").write_text('{"files": {}'),
        lambda entry: (entry / "manifest.json").write_text("[]"),
        lambda entry: (entry / "manifest.json").write_text('{"files": {}}'),
        lambda entry: (entry / "manifest.json").unlink(),
    ],
    ids=["shorter", "one byte", "file gone", "torn manifest", "other manifest", "no facts", "no manifest"],
)
def test_a_damaged_entry_is_thrown_away_and_made_anew(place, empty, damage):
    cache.keep("one", place(), {"counts": 3})
    damage(home().cache / "rows" / "one")
    assert cache.fetch("one", empty) is None and not list(empty.iterdir())
    cache.keep("one", place("second"), {"counts": 4})
    assert cache.fetch("one", empty) == {"counts": 4}
    assert entries() == ["one"]


def test_of_two_runs_at_once_one_keeps_its_rows_and_none_is_disturbed(place, empty):
    first, second = place("first"), place("second")
    cache.keep("one", first, {"by": 1})
    cache.keep("one", second, {"by": 2})
    assert cache.fetch("one", empty) == {"by": 1} and entries() == ["one"]
    assert (second / "train.arrow").read_text() == "train"


def test_entries_that_were_not_used_for_longest_go_when_there_is_no_room(place, empty):
    for age, name in ((300, "old"), (200, "used"), (100, "new")):
        cache.keep(name, place(name), {})
        path = home().cache / "rows" / name / "manifest.json"
        os.utime(path, (path.stat().st_atime, path.stat().st_mtime - age))
    assert cache.fetch("used", empty) == {}
    size = sum(path.stat().st_size for path in (home().cache / "rows" / "new").iterdir())
    cache.keep("newest", place("newest"), {}, most_bytes=2 * size + 1)
    assert entries() == ["newest", "used"]
    # whoever took its files still has them
    cache.keep("last", place("last"), {}, most_bytes=size)
    assert entries() == ["last"] and (empty / "train.arrow").read_text() == "train"


def test_rows_that_are_larger_than_all_entries_may_be_are_not_kept(place):
    cache.keep("large", place(), {}, most_bytes=3)
    assert entries() == []


def test_what_a_crashed_run_left_goes_after_a_day(place):
    folder = home().cache / "rows"
    folder.mkdir()
    for name, age in ((".crashed", 2 * 24 * 3600), (".writing", 60)):
        (folder / name).mkdir()
        os.utime(folder / name, (0, (folder / name).stat().st_mtime - age))
    cache.keep("one", place(), {})
    assert entries() == [".writing", "one"]


@pytest.fixture
def about(tiny, studio_home, tmp_path):
    """What a key is made of."""
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps({"prompt": f"q{n}", "completion": "a"}) for n in range(5)), "utf-8")
    dataset = registry.add(path, "a")
    spec = parse(TrainSpec, {"data": {"datasets": ["a"], "max_length": 64}, "template": {"name": "chatml"}})
    return spec, TextTokenizer.from_folder(tiny()), load("chatml"), [dataset]


def changed(spec, **data):
    return spec.model_copy(update={"data": spec.data.model_copy(update=data)})


def test_a_key_is_equal_as_long_as_the_rows_would_be(about):
    spec, tokenizer, template, datasets = about
    key = cache.key(*about)
    assert key == cache.key(spec, tokenizer, load("chatml"), [registry.get("a")])
    training = spec.training.model_copy(update={"learning_rate": 1.0})
    assert key == cache.key(spec.model_copy(update={"training": training}), tokenizer, template, datasets)
    assert key == cache.key(changed(spec, weights=(2.0,), repeat=True), tokenizer, template, datasets)


def test_a_key_differs_with_all_that_decides_about_the_rows(about, monkeypatch):
    spec, tokenizer, template, datasets = about
    other = TextTokenizer(tokenizer.backend, tokenizer.specials | {"eos_token": "<|endoftext|>"})
    larger = TextTokenizer(tokenizer.backend, tokenizer.specials)
    larger.backend.add_tokens(["more"])
    last = spec.template.model_copy(update={"supervise": "last"})
    settings = {"max_length": 65, "truncation": "drop_row", "validation_share": 0.5, "seed": 1, "max_samples": 3}
    given = [
        about,
        *((changed(spec, **{name: value}), *about[1:]) for name, value in settings.items()),
        (spec.model_copy(update={"template": last}), *about[1:]),
        (spec, other, template, datasets),
        (spec, larger, template, datasets),
        (spec, tokenizer, replace(template, text=template.text + " "), datasets),
        (spec, tokenizer, replace(template, stop=("x",)), datasets),
        (spec, tokenizer, template, [replace(datasets[0], sha256="0" * 64)]),
        (spec, tokenizer, template, [replace(datasets[0], columns={"prompt": "completion"})]),
    ]
    keys = [cache.key(*each) for each in given]
    monkeypatch.setattr(cache, "_code", lambda: "of another version")
    keys.append(cache.key(*about))
    assert len(set(keys)) == len(keys)


def test_a_template_that_writes_the_date_has_a_key_for_each_day(about, monkeypatch):
    spec, tokenizer, template, datasets = about
    dated = replace(template, text="{{ strftime_now('%d') }}" + template.text)

    def on(day):
        monkeypatch.setattr(cache, "date", type("Day", (), {"today": staticmethod(lambda: day)}))
        return [cache.key(spec, tokenizer, each, datasets) for each in (template, dated)]

    (same, one), (same_again, other) = on("2026-01-01"), on("2026-01-02")
    assert same == same_again and one != other

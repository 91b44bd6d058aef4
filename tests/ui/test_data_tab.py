import json
import time
from types import SimpleNamespace

import gradio as gr
import pytest

from studio.data import intake, registry
from studio.errors import DataError
from studio.jobs.executors.replay import Replay
from studio.jobs.monitor import Monitor
from studio.ui import data_add, data_file, data_rows, opened
from studio.ui.data_file import Chosen
from studio.ui.data_rows import Place
from studio.ui.dataset_view import PARTS
from studio.ui.page import Page
from studio.ui.tabs import data
from studio.ui.waiting import while_working


@pytest.fixture
def tab(studio_home):
    """The tab's widgets, and what its handlers are given."""
    with gr.Blocks() as demo:
        page = Page(demo, Monitor(), Replay([]))
        widgets = data.build(page)
    return SimpleNamespace(page=page, widgets=widgets, set=widgets.set, new=widgets.new, add=widgets.add)


@pytest.fixture
def request_():
    return SimpleNamespace(query_params={}, headers={"accept-language": "en"})


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.jsonl"
    rows = [{"question": f"q{n}", "answer": f"a{n}", "hint": "h"} for n in range(45)]
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


def look(tab, **place):
    return data_rows.look(tab.page, tab.set.rows, Place(**place), "en")


def opening(tab, request_, work, before=""):
    """Every update while something is taken in."""
    chosen = Chosen(tab.set.name, tab.widgets.shown, lambda name, _: {tab.set.name: name}, {tab.set.box: "aside"})
    doing = data_add._Opening(tab.add, tab.new, chosen)
    return list(doing.rows(work, "mine", [], data_add._Now(before, "identity-en", request_)))


@pytest.fixture
def token(tab, request_, file):
    """Of the file, taken in."""
    updates = opening(tab, request_, lambda watch: intake.take_in(file, uploaded=True, watch=watch))
    yield updates[0][tab.new.token]
    opened.forget(updates[0][tab.new.token])


# --- rows


def test_pages_of_rows_stay_inside_the_dataset(tab):
    for start, expected in ((0, 0), (20, 20), (40, 40), (60, 40), (10**9, 40)):
        assert look(tab, name="identity-en", start=start)[tab.set.rows.place].start == expected


def test_the_last_page_has_no_next_one(tab):
    rows = tab.set.rows
    first, last = look(tab, name="identity-en"), look(tab, name="identity-en", start=40)
    assert first[rows.next_start] == 20 and first[rows.previous]["interactive"] is False
    assert last[rows.next_start] is None and last[rows.next]["interactive"] is False
    assert "rows 41–48 of 48" in last[rows.position]


def test_a_search_shows_the_rows_that_hold_the_text_and_where_they_stand(tab):
    rows = tab.set.rows
    found = look(tab, name="identity-en", by="search", key="miro")
    assert found[rows.next_start] is not None and found[rows.search] == "miro"
    assert "that hold “miro”" in found[rows.position]
    assert "No further row holds" in look(tab, name="identity-en", by="search", key="zebra")[rows.position]


def test_a_finding_of_an_audit_that_is_gone_shows_every_row(tab):
    found = look(tab, name="identity-en", by="finding", key="duplicate")
    assert found[tab.set.rows.place].by == "all" and found[tab.set.rows.finding]["value"] == data_rows.ALL


def test_rows_that_are_gone_are_told_in_their_place(tab, file):
    registry.add(file, "mine").path.unlink()
    updates = look(tab, name="mine")
    assert "cannot be read" in updates[tab.set.rows.rows] and updates[tab.set.rows.next]["interactive"] is False


# --- one dataset


def test_a_shipped_dataset_cannot_be_renamed_or_removed_from_the_page(tab):
    shown = data.shown(tab.page, tab.widgets, "identity-en", "en")
    assert shown[tab.set.remove]["interactive"] is False and shown[tab.set.rename]["interactive"] is False


def test_whatever_is_shown_of_a_dataset_is_among_the_outputs(tab):
    assert set(data.shown(tab.page, tab.widgets, None, "en")) <= set(tab.widgets.shown)


def test_use_in_training_refuses_a_dataset_that_is_gone(studio_home):
    assert data.in_training("identity-en")["data.datasets"]["value"] == ["identity-en"]
    with pytest.raises(DataError, match="Unknown dataset"):
        data.in_training("was-here")


# --- a file


def test_looking_at_a_file_offers_its_columns(tab, token):
    update = data_file.looked(tab.new, token, "en")
    parts = {part: update[widget] for part, widget in tab.new.parts.items()}
    assert parts["prompt"]["value"] == "question"
    assert [value for _, value in parts["response"]["choices"]] == ["question", "answer", "hint"]
    assert [value for _, value in parts["system"]["choices"]] == ["question", "answer", "hint", ""]
    assert parts["messages"]["visible"] is False
    assert set(update) <= set(tab.new.shown)


def test_another_mapping_is_what_is_registered(tab, token, request_):
    chosen = {"prompt": "hint", "response": "question"}
    columns = data_file.mapping("prompt_completion", [chosen.get(part) for part in PARTS])
    assert columns == {"prompt": "hint", "response": "question", "system": "", "tools": ""}
    *_, update = data_file._mapped(tab.new, token, "prompt_completion", columns, {}, request_)
    assert "chosen by hand" in update[tab.new.understood]
    dataset = registry.register(opened.rows(token), "mine")
    assert dataset.columns == {"prompt": "hint", "response": "question"}
    assert next(iter(registry.outcomes(dataset)))[1].answer == "q0"


def test_a_column_may_be_a_path(tab, request_, tmp_path):
    path = tmp_path / "nested.jsonl"
    path.write_text("\n".join(json.dumps({"q": "a", "meta": {"by": f"b{n}"}}) for n in range(3)), encoding="utf-8")
    token = opening(tab, request_, lambda watch: intake.take_in(path, watch=watch))[0][tab.new.token]
    columns = {"prompt": "q", "response": "meta.by", "system": "", "tools": ""}
    *_, update = data_file._mapped(tab.new, token, "prompt_completion", columns, {}, request_)
    assert "3 of 3 rows" in update[tab.new.understood]
    assert update[tab.new.parts["response"]]["value"] == "meta.by"
    opened.forget(token)


def test_leaving_a_box_in_which_nothing_changed_reads_nothing_again(tab, token, request_):
    found = opened.rows(token).inspection.detection
    columns = data_file.mapping(found.format, [found.columns.get(part) for part in PARTS])
    words = {**data_file.FORMATS[found.format].tags, **found.tags}
    assert list(data_file._mapped(tab.new, token, found.format, columns, words, request_)) == []


def test_text_can_be_read_by_paragraphs_instead_of_lines(tab, request_, tmp_path):
    path = tmp_path / "book.txt"
    path.write_text("one\ntwo\n\nthree\n", encoding="utf-8")
    token = opened.start([str(path)])
    opened.get(token).intake = before = intake.take_in(path, uploaded=True)
    assert data_file.looked(tab.new, token, "en")[tab.new.unit]["visible"] is True
    *_, update = data_file._read_again(tab.new, token, "paragraph", request_)
    assert "2 of 2 rows" in update[tab.new.understood] and update[tab.new.unit]["value"] == "paragraph"
    assert not before.path.exists()
    opened.forget(token)


def test_a_file_that_cannot_be_read_leaves_the_dataset_in_sight(tab, request_, tmp_path):
    path = tmp_path / "latin.csv"
    path.write_bytes("prompt,completion\ncafé,x\n".encode("latin-1"))
    updates = opening(tab, request_, lambda watch: intake.take_in(path, watch=watch))
    assert "is not UTF-8" in updates[-1][tab.add.status] and tab.set.box not in updates[-1]
    assert updates[-1][tab.new.box]["visible"] is False


def test_a_second_file_takes_the_place_of_the_first(tab, token, request_, file):
    first = opened.rows(token).path
    updates = opening(tab, request_, lambda watch: intake.take_in(file, watch=watch), before=token)
    assert not first.exists() and not opened.is_open(token)
    opened.forget(updates[0][tab.new.token])


def test_a_file_that_was_left_while_it_was_read_changes_nothing(tab, request_, file):
    def work(watch):
        opened.forget(next(iter(opened._all)))
        return intake.take_in(file)

    for token in list(opened._all):
        opened.forget(token)
    assert len(opening(tab, request_, work)) == 1
    assert list(registry.home().uploads.glob(".staged-*")) == []


# --- waiting


def test_slow_work_tells_that_it_goes_on_and_quick_work_does_not():
    def run(seconds):
        def work():
            time.sleep(seconds)
            return "done"

        told = []

        def drive():
            result = yield from while_working(work, lambda so_far: so_far)
            told.append(result)

        return list(drive()), told

    assert run(0) == ([], ["done"])
    ticks, told = run(0.8)
    assert len(ticks) >= 1 and told == ["done"]


def test_what_the_work_raises_is_raised():
    def work():
        raise DataError("no")

    with pytest.raises(DataError):
        list(while_working(work, lambda _: None))

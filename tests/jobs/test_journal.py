"""Appending to and tailing events.jsonl."""

import json
import threading

from studio.events import Ended, Note, Phase, Started, Step
from studio.jobs.journal import END, Journal, last_attempt, tail


def step(number: int, loss: float = 1.0) -> Step:
    return Step(step=number, epoch=0.0, loss=loss, learning_rate=1e-4)


def test_what_is_appended_is_read_back_with_its_attempt(tmp_path):
    journal = Journal(tmp_path / "events.jsonl", attempt=3)
    journal.append(step(1, loss=0.25))
    events, offset, skipped = tail(tmp_path / "events.jsonl")
    assert [(event.step, event.loss, event.attempt) for event in events] == [(1, 0.25, 3)]
    assert offset == (tmp_path / "events.jsonl").stat().st_size and skipped == 0


def test_a_half_written_last_line_waits_for_its_end(tmp_path):
    path = tmp_path / "events.jsonl"
    line = step(1).model_dump_json().encode() + b"\n"
    path.write_bytes(line + line[:20])
    events, offset, _ = tail(path)
    assert len(events) == 1 and offset == len(line)
    path.write_bytes(line + line)
    assert len(tail(path, offset)[0]) == 1


def test_torn_and_foreign_lines_are_skipped_and_counted(tmp_path):
    path = tmp_path / "events.jsonl"
    good = step(7).model_dump_json()
    path.write_text("\n".join([good, '{"type": "step", "st', "null", '{"type": "unheard-of"}', good]) + "\n")
    events, _, skipped = tail(path)
    assert [event.step for event in events] == [7, 7] and skipped == 3


def test_a_new_attempt_does_not_glue_its_first_line_to_a_torn_one(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text('{"type": "step", "st')
    Journal(path, attempt=2).append(Note(text="back"))
    events, _, skipped = tail(path)
    assert [event.text for event in events] == ["back"] and skipped == 1


def test_a_reader_beside_the_writer_loses_nothing(tmp_path):
    path, seen, offset = tmp_path / "events.jsonl", [], 0
    journal = Journal(path, attempt=1)
    writer = threading.Thread(target=lambda: [journal.append(step(number)) for number in range(2000)])
    writer.start()
    while writer.is_alive() or offset < path.stat().st_size:
        events, offset, skipped = tail(path, offset)
        assert skipped == 0
        seen += [event.step for event in events]
    assert seen == list(range(2000))


def test_the_attempt_number_survives_a_restart(tmp_path):
    path = tmp_path / "events.jsonl"
    assert last_attempt(path) == 0
    Journal(path, attempt=4).append(Phase(name="load"))
    assert last_attempt(path) == 4


def test_each_line_is_one_json_object_with_its_type(tmp_path):
    Journal(tmp_path / "events.jsonl", attempt=1).append(step(5, loss=2.0))
    (line,) = (tmp_path / "events.jsonl").read_text().splitlines()
    values = json.loads(line)
    assert values["type"] == "step" and values["step"] == 5 and values["loss"] == 2.0


def test_the_outline_of_a_long_file_reads_its_ends_and_goes_on_from_its_last_byte(tmp_path):
    path = tmp_path / "events.jsonl"
    journal = Journal(path, 1)
    journal.append(Started(pid=1, host="here"))
    for number in range(1, 6001):
        journal.append(Step(step=number, epoch=0.1, loss=1.0, learning_rate=1e-3))
    journal.append(Ended(state="finished"))
    assert path.stat().st_size > 3 * END
    events, offset, skipped = tail(path, last_steps=5)
    assert [event.step for event in events if event.type == "step"] == [1, 5996, 5997, 5998, 5999, 6000]
    assert (events[0].type, events[-1].type, skipped, offset) == ("started", "ended", 0, path.stat().st_size)
    journal.append(Note(text="more"))
    assert [event.type for event in tail(path, offset)[0]] == ["note"]

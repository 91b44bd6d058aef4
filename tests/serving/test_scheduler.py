"""Requests that come at any time, and faults that stay with the request they belong to."""

import asyncio
import time
from dataclasses import dataclass, field

import pytest

from studio import specs
from studio.errors import ModelError, ServingError
from studio.jobs import folder as folders
from studio.serving.scheduler import Scheduler, Wanted
from studio.specs import TrainSpec
from tests.examples import finished_run

PATIENCE_S = 10


@dataclass(frozen=True)
class Piece:
    turn: int
    text: str
    finish: str | None = None
    error: Exception | None = None


@dataclass
class FakeChat:
    """Answers each question with its first message, letter by letter, until the reader cancels; "…" never ends."""

    added: list = field(default_factory=list)
    batches: list = field(default_factory=list)
    steps: list = field(default_factory=list)
    speaking: dict = field(default_factory=dict)
    count: int = 0

    def add(self, name, adapter, trained):
        if adapter.parent.name.startswith("broken"):
            raise KeyError("weights")
        self.added.append(name)

    def request(self, turn):
        if turn.messages[0].content == "refused":
            raise ModelError("The template refuses this.")
        return turn

    def begin(self, turns):
        self.batches.append([turn.model for turn in turns])
        numbers = list(range(self.count, self.count + len(turns)))
        self.count += len(turns)
        self.speaking |= {n: (turn, list(turn.messages[0].content)) for n, turn in zip(numbers, turns, strict=True)}
        return numbers

    def step(self):
        self.steps.append(len(self.speaking))
        pieces = [self._piece(number, *each) for number, each in self.speaking.items()]
        for piece in pieces:
            if piece.finish:
                del self.speaking[piece.turn]
        return pieces

    def _piece(self, number, turn, text):
        if text == list("bug"):
            raise IndexError("out of range")
        if text == list("crash"):
            return Piece(number, "", "failed", IndexError("out of range"))
        if turn.cancelled():
            return Piece(number, "", "cancelled")
        if text == ["…"]:
            time.sleep(0.001)
            return Piece(number, ".")
        letter = text.pop(0)
        return Piece(number, letter, None if text else "stop")

    def forget(self):
        self.speaking.clear()


class Loaded(Scheduler):
    """A scheduler whose base is a fake chat."""

    def __init__(self, chat, base="m"):
        super().__init__(base, "none")
        self._fake = chat

    def _load(self):
        if isinstance(self._fake, Exception):
            raise self._fake
        self._chat = self._fake


@pytest.fixture
def chat():
    return FakeChat()


@pytest.fixture
def scheduler(studio_home, chat):
    scheduler = Loaded(chat)
    ended = []
    scheduler.on_end = lambda: ended.append(1)
    scheduler.start()
    until(lambda: scheduler.ready)
    yield scheduler
    scheduler.end()
    scheduler.join(PATIENCE_S)
    assert ended


def until(condition):
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def messages(text):
    from studio.data.example import Message

    return [Message("user", text)]


def converse(scheduler, *questions):
    """What is said to each (model, text), asked at once; an error in the place of a text."""

    async def one(answer):
        try:
            return "".join([piece.text async for piece in answer])
        except ServingError as error:
            return error

    async def all_of_them():
        loop = asyncio.get_running_loop()
        answers = [scheduler.ask(Wanted(model, messages(text)), loop) for model, text in questions]
        return await asyncio.wait_for(asyncio.gather(*map(one, answers)), PATIENCE_S)

    return asyncio.run(all_of_them())


def run_on(base, name="run"):
    return finished_run(name, sets=[f"model.name={base}"])


def test_questions_that_come_together_are_one_batch(scheduler, chat):
    run = run_on("m")
    assert converse(scheduler, ("base", "one"), (run.id, "two")) == ["one", "two"]
    assert chat.batches == [["base", run.id]] and chat.added == [run.id]


def test_a_question_that_comes_later_does_not_wait_for_the_first_to_end(scheduler, chat):
    async def later():
        loop = asyncio.get_running_loop()
        endless = scheduler.ask(Wanted("base", messages("…")), loop)
        async for _ in endless:
            break
        second = scheduler.ask(Wanted("base", messages("quick")), loop)
        text = "".join([piece.text async for piece in second])
        endless.cancel()
        return text

    assert asyncio.run(asyncio.wait_for(later(), PATIENCE_S)) == "quick"
    assert chat.batches == [["base"], ["base"]] and max(chat.steps) == 2


def test_checkpoints_are_held_under_their_step(scheduler, chat):
    done = finished_run("done", sets=["model.name=m"], checkpoints=[3])
    running = finished_run("running", sets=["model.name=m"], checkpoints=[2, 9])
    running.adapter.rmdir()
    converse(scheduler, (done.id, "a"), (f"{done.id}@3", "b"), (running.id, "c"))
    assert chat.added == [done.id, f"{done.id}@3", f"{running.id}@9"]


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("nothing", "Unknown job 'nothing'"),
        ("../jobs", "Unknown job"),
        ("{run}@7", "no checkpoint at step 7"),
        ("{run}@x", "not a training run or a checkpoint RUN@STEP"),
        ("{run}@²", "not a training run or a checkpoint RUN@STEP"),
        ("{run}@" + "9" * 5000, "not a training run or a checkpoint RUN@STEP"),
        ("{other}", "was trained on n, but this server holds m"),
        ("{evaluation}", "not a training run"),
        ("{broken}", "The model failed: KeyError"),
        ("{damaged}", "damaged"),
    ],
)
def test_a_name_that_cannot_answer_is_told_to_its_own_reader_only(scheduler, model, words):
    evaluation = folders.create("evaluate", specs.EvaluateSpec(run="x"), "eval")
    damaged = run_on("m", "damaged")
    damaged.about.write_text("{}")
    names = {
        "run": run_on("m").id,
        "other": run_on("n", "other").id,
        "evaluation": evaluation.id,
        "broken": run_on("m", "broken").id,
        "damaged": damaged.id,
    }
    bad, good = converse(scheduler, (model.format(**names), "a"), ("base", "fine"))
    assert words in str(bad) and good == "fine"
    assert converse(scheduler, ("base", "still there")) == ["still there"]


def test_a_conversation_that_its_template_refuses_does_not_harm_the_other(scheduler):
    refused, fine = converse(scheduler, ("base", "refused"), ("base", "fine"))
    assert str(refused) == "The template refuses this." and fine == "fine"


def test_a_model_that_fails_is_told_to_those_it_failed_for(scheduler):
    failed, fine = converse(scheduler, ("base", "crash"), ("base", "b"))
    assert str(failed) == "The model failed: IndexError: out of range" and fine == "b"


def test_a_bug_is_told_to_every_reader_and_the_next_question_is_answered(scheduler):
    both = converse(scheduler, ("base", "bug"), ("base", "b"))
    assert [str(error) for error in both] == ["The model failed: IndexError: out of range"] * 2
    assert converse(scheduler, ("base", "again")) == ["again"]


def test_a_cancelled_question_stops_being_answered(scheduler, chat):
    async def cancel():
        answer = scheduler.ask(Wanted("base", messages("…")), asyncio.get_running_loop())
        async for _ in answer:
            answer.cancel()
            break
        return [piece.finish async for piece in answer][-1]

    assert asyncio.run(asyncio.wait_for(cancel(), PATIENCE_S)) == "cancelled"


def test_an_answer_whose_event_loop_is_gone_is_cancelled(scheduler):
    loop = asyncio.new_event_loop()
    answer = scheduler.ask(Wanted("base", messages("…")), loop)
    loop.close()
    until(lambda: answer.cancelled)
    assert converse(scheduler, ("base", "next")) == ["next"]


def test_ending_is_told_to_everyone_who_waits(studio_home, chat):
    scheduler = Loaded(chat)
    scheduler.start()
    until(lambda: scheduler.ready)

    async def ask_and_end():
        loop = asyncio.get_running_loop()
        answers = [scheduler.ask(Wanted("base", messages("…")), loop) for _ in range(3)]
        async for _ in answers[0]:
            break
        scheduler.end()
        for answer in answers:
            with pytest.raises(ServingError, match="is ending"):
                async for _ in answer:
                    pass
        with pytest.raises(ServingError, match="is ending"):
            scheduler.ask(Wanted("base", messages("a")), loop)

    asyncio.run(asyncio.wait_for(ask_and_end(), PATIENCE_S))


def test_a_base_that_does_not_load_is_told_and_its_end_is_not_waited_for(studio_home):
    scheduler, ended = Loaded(ModelError("There is no model folder x.")), []
    scheduler.on_end = lambda: ended.append(1)
    scheduler.start()
    until(lambda: scheduler.error)
    assert scheduler.error == "There is no model folder x." and not scheduler.ready and not ended
    loop = asyncio.new_event_loop()
    with pytest.raises(ServingError, match="no model folder"):
        scheduler.ask(Wanted("base", messages("a")), loop)
    loop.close()
    scheduler.end()
    assert ended
    scheduler.join(PATIENCE_S)


def test_a_bug_while_loading_is_one_line(studio_home):
    scheduler = Loaded(ZeroDivisionError("by zero"))
    scheduler.start()
    until(lambda: scheduler.error)
    assert scheduler.error == "ZeroDivisionError: by zero"
    scheduler.end()


def test_loading_is_not_idling(studio_home, chat):
    scheduler = Loaded(chat)
    scheduler._last -= 10_000
    assert scheduler.idle_s == 0
    scheduler.start()
    until(lambda: scheduler.ready)
    assert scheduler.idle_s < 10_000
    scheduler.end()


def test_names_are_the_base_and_the_runs_on_it_that_have_an_adapter(scheduler):
    run = finished_run("run", sets=["model.name=m"], checkpoints=[4, 12])
    run_on("n", "other")
    empty = folders.create("train", specs.parse(TrainSpec, {"model": {"name": "m"}}), "empty")
    folders.create("export", specs.ExportSpec(run="x"), "export")
    for text in ("{", "{}", "[]", '{"kind": "cook", "name": "x", "created": 1}'):
        folders.create("train", specs.parse(TrainSpec, {}), "odd").about.write_text(text)
    assert scheduler.names == ["base", run.id, f"{run.id}@4", f"{run.id}@12"] and empty.id not in scheduler.names

"""The routes of the chat server over a scheduler that answers from a table."""

import asyncio
import json
from dataclasses import dataclass, field

import pytest
from starlette.testclient import TestClient

from studio.data.example import Message
from studio.errors import ServingError
from studio.serving.scheduler import Answer
from studio.serving.server import application
from studio.specs import Sampling

TOKEN = "s3same"
HERE = "http://127.0.0.1"
HELLO = {"model": "base", "messages": [{"role": "user", "content": "Hello"}]}
ROUTES = [
    ("GET", "/health"),
    ("GET", "/v1/models"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("POST", "/shutdown"),
]


@dataclass(frozen=True)
class Written:
    """A piece of an answer, as studio.engine.chat.Piece has it."""

    text: str
    tokens: int
    prompt_tokens: int = 7
    finish: str | None = None
    likely: tuple = ()


@dataclass
class FakeScheduler:
    """script: what each question is answered with; an exception is raised to the reader."""

    script: list = field(default_factory=lambda: [Written("你", 1), Written("好", 2), Written("!", 3, finish="stop")])
    ready: bool = True
    phase: str = "ready"
    error: str | None = None
    names: tuple[str, ...] = ("base", "run")
    ended: bool = False
    asked: list = field(default_factory=list)

    def end(self):
        self.ended = True

    def ask(self, wanted, loop):
        if not self.ready:
            raise ServingError("still loading")
        answer = Answer(wanted, loop)
        for piece in self.script:
            answer.pieces.put_nowait(piece)
        self.asked.append(answer)
        return answer


@pytest.fixture
def scheduler():
    return FakeScheduler()


@pytest.fixture
def http(scheduler):
    return TestClient(application(scheduler, TOKEN), HERE, headers={"Authorization": f"Bearer {TOKEN}"})


def ask(http, **changes):
    return http.post("/v1/chat/completions", json=HELLO | changes)


def said(answer):
    return answer.json()["error"]["message"]


@pytest.mark.parametrize(("method", "route"), ROUTES)
@pytest.mark.parametrize("given", [None, "", "Bearer wrong", "Bearer ", f"Basic {TOKEN}", "Bearer s3samé"])
def test_without_the_token_no_route_answers(scheduler, method, route, given):
    headers = {} if given is None else {"Authorization": given.encode("latin-1")}
    answer = TestClient(application(scheduler, TOKEN), HERE).request(method, route, headers=headers, json=HELLO)
    assert answer.status_code == 401 and "token" in said(answer)
    assert not scheduler.asked and not scheduler.ended


def test_health_tells_what_is_happening(scheduler, http):
    scheduler.ready, scheduler.phase, scheduler.error = False, "load", "no memory"
    assert http.get("/health").json() == {"ready": False, "phase": "load", "error": "no memory"}


def test_models_are_listed_as_openai_lists_them(http):
    listed = http.get("/v1/models").json()
    assert listed["object"] == "list"
    assert [(entry["id"], entry["object"]) for entry in listed["data"]] == [("base", "model"), ("run", "model")]


def test_shutdown_ends_the_scheduler(scheduler, http):
    assert http.post("/shutdown").status_code == 200 and scheduler.ended


def test_a_whole_answer_has_the_shape_of_openais(scheduler, http):
    answer = ask(http, model="run", temperature=0.5, max_tokens=9, seed=3).json()
    assert answer["object"] == "chat.completion" and answer["id"].startswith("chatcmpl-") and answer["model"] == "run"
    (choice,) = answer["choices"]
    assert choice == {"index": 0, "message": {"role": "assistant", "content": "你好!"}, "finish_reason": "stop"}
    assert answer["usage"] == {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    (asked,) = (answer.wanted for answer in scheduler.asked)
    assert (asked.model, asked.messages) == ("run", [Message("user", "Hello")])
    assert asked.sampling == Sampling(temperature=0.5, max_tokens=9, seed=3)


def test_a_streamed_answer_is_chunks_and_then_done(http):
    with http.stream("POST", "/v1/chat/completions", json=HELLO | {"stream": True}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        blocks = "".join(answer.iter_text()).split("\n\n")
    assert blocks[-2:] == ["data: [DONE]", ""]
    chunks = [json.loads(block.removeprefix("data: ")) for block in blocks[:-2]]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"} and len({c["id"] for c in chunks}) == 1
    assert [chunk["choices"][0]["delta"] for chunk in chunks] == [
        {"role": "assistant", "content": ""},
        {"content": "你"},
        {"content": "好"},
        {"content": "!"},
    ]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, None, "stop"]
    assert chunks[-1]["usage"]["completion_tokens"] == 3


def test_openais_newer_name_for_the_length_is_understood(scheduler, http):
    ask(http, max_completion_tokens=5)
    assert scheduler.asked[0].wanted.sampling.max_tokens == 5


def test_fields_that_are_null_keep_their_defaults(scheduler, http):
    ask(http, temperature=None, max_tokens=None, stream=None, user="somebody")
    assert scheduler.asked[0].wanted.sampling == Sampling()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[1]", "must be an object"),
        (b"null", "must be an object"),
    ],
)
def test_a_body_that_is_no_object_is_refused(http, scheduler, body, words):
    answer = http.post("/v1/chat/completions", content=body)
    assert answer.status_code == 400 and words in said(answer) and not scheduler.asked


def messages(*contents):
    return [{"role": "user", "content": content} for content in contents]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"messages": None}, "at least one message"),
        ({"messages": []}, "at least one message"),
        ({"messages": "Hello"}, "at least one message"),
        ({"messages": {"role": "user"}}, "at least one message"),
        ({"messages": ["Hello"]}, "Message 1 needs a role: system, user or assistant"),
        ({"messages": [*messages("a"), {"role": "tool", "content": "b"}]}, "Message 2 needs a role"),
        ({"messages": [{"role": ["user"], "content": "b"}]}, "Message 1 needs a role"),
        ({"messages": messages("a", None)}, "Message 2 needs a content that is text"),
        ({"messages": messages(["a"])}, "Message 1 needs a content that is text"),
        ({"model": 3}, "model must be a text"),
        ({"temperature": "hot"}, "temperature: must be a number"),
        ({"temperature": -1}, "temperature: must be at least 0"),
        ({"top_p": 0}, "top_p: must be above 0"),
        ({"max_tokens": 0}, "max_tokens: must be at least 1"),
        ({"seed": 1.5}, "seed: must be a whole number"),
        ({"repetition_penalty": []}, "repetition_penalty: must be a number"),
        ({"stop": [""]}, "stop must be a text"),
        ({"stop": ["a"] * 17}, "stop must be a text"),
        ({"stop": {"a": 1}}, "stop must be a text"),
        ({"n": 0}, "n must be a whole number from 1 to 16"),
        ({"n": True}, "n must be a whole number"),
        ({"n": 17}, "n must be a whole number"),
        ({"logprobs": "yes"}, "logprobs must be true or false"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs must be a whole number from 0 to 20"),
        ({"stream": "yes"}, "stream must be true or false"),
        ({"stream_options": [1]}, "stream_options must be an object"),
        ({"frequency_penalty": 0.5}, "frequency_penalty cannot be used here"),
        ({"response_format": {"type": "json_object"}}, "response_format cannot be used here"),
    ],
)
def test_a_wrong_field_is_refused_by_its_name(http, scheduler, changes, words):
    answer = ask(http, **changes)
    assert answer.status_code == 400 and words in said(answer) and not scheduler.asked


@pytest.mark.parametrize("field", [{"model": "\ud800"}, {"messages": [{"role": "user", "content": "a\udc00"}]}])
def test_f09_half_a_character_is_refused(http, scheduler, field):
    answer = http.post("/v1/chat/completions", content=json.dumps(HELLO | field))
    assert answer.status_code == 400 and not scheduler.asked


def test_a_base_that_still_loads_is_told(http, scheduler):
    scheduler.ready = False
    assert ask(http).status_code == 400 and said(ask(http)) == "still loading"


def test_an_error_of_the_model_is_told_in_either_way_of_asking(http, scheduler):
    scheduler.script = [Written("a", 1), ServingError("The run 'x' is gone.")]
    answer = ask(http)
    assert answer.status_code == 400 and said(answer) == "The run 'x' is gone."
    last = ask(http, stream=True).text.strip().splitlines()[-1]
    assert json.loads(last.removeprefix("data: ")) == {"error": {"message": "The run 'x' is gone."}}


@pytest.mark.parametrize("stream", [True, False])
def test_a_reader_that_goes_away_cancels_its_request(scheduler, stream):
    """Spoken in ASGI itself, because a test client never hangs up."""
    scheduler.script = [Written("a", 1)]  # and then nothing more comes

    async def hang_up():
        body = json.dumps(HELLO | {"stream": stream}).encode()
        arrived, sent = asyncio.Queue(), []
        arrived.put_nowait({"type": "http.request", "body": body, "more_body": False})
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "method": "POST",
            "path": "/v1/chat/completions",
            "raw_path": b"/v1/chat/completions",
            "query_string": b"",
            "headers": [(b"host", b"127.0.0.1"), (b"authorization", f"Bearer {TOKEN}".encode())],
        }

        async def send(message):
            sent.append(message)

        task = asyncio.create_task(application(scheduler, TOKEN)(scope, arrived.get, send))
        while not scheduler.asked:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        assert not scheduler.asked[0].cancelled
        arrived.put_nowait({"type": "http.disconnect"})
        for _ in range(100):
            if scheduler.asked[0].cancelled:
                break
            await asyncio.sleep(0.02)
        scheduler.asked[0].pieces.put_nowait(Written("", 1, finish="cancelled"))
        await asyncio.wait_for(task, 5)

    asyncio.run(hang_up())
    assert scheduler.asked[0].cancelled


def text(http, **changes):
    return http.post("/v1/completions", json={"model": "base", "prompt": "Once"} | changes)


def test_a_text_is_continued_by_sixteen_tokens_unless_more_are_asked_for(scheduler, http):
    answer = text(http).json()
    assert answer["object"] == "text_completion" and answer["id"].startswith("cmpl-")
    assert answer["choices"] == [{"index": 0, "text": "你好!", "logprobs": None, "finish_reason": "stop"}]
    text(http, max_tokens=5, prompt=[3, 4])
    first, second = (answer.wanted for answer in scheduler.asked)
    assert (first.prompt, first.sampling.max_tokens, first.messages) == ("Once", 16, ())
    assert (second.prompt, second.sampling.max_tokens) == ([3, 4], 5)


@pytest.mark.parametrize("prompt", [None, [], [[]], 3, [1, "a"], [["a"]], {"a": 1}, [True], [1.5]])
def test_what_is_no_prompt_is_refused(scheduler, http, prompt):
    answer = text(http, prompt=prompt)
    assert answer.status_code == 400 and "prompt must be a text" in said(answer) and not scheduler.asked


def test_more_answers_than_are_written_at_once_are_refused(scheduler, http):
    assert "34 answers are asked for, and 16 is the most" in said(text(http, prompt=["a"] * 17, n=2))
    assert not scheduler.asked


def test_each_of_several_answers_has_a_seed_of_its_own_and_an_index(scheduler, http):
    answer = ask(http, n=3, seed=7).json()
    assert [asked.wanted.sampling.seed for asked in scheduler.asked] == [7, 8, 9]
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert answer["usage"] == {"prompt_tokens": 21, "completion_tokens": 9, "total_tokens": 30}


def test_one_answer_that_fails_ends_the_others(scheduler, http):
    scheduler.script = [Written("a", 1), ServingError("The run 'x' is gone.")]
    assert said(ask(http, n=2)) == "The run 'x' is gone."
    assert all(answer.cancelled for answer in scheduler.asked)


def test_parts_of_text_are_one_content_and_a_developer_is_the_system(scheduler, http):
    parts = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]
    ask(http, messages=[{"role": "developer", "content": "Be brief."}, {"role": "user", "content": parts}])
    assert scheduler.asked[0].wanted.messages == [Message("system", "Be brief."), Message("user", "Hello")]
    picture = [{"type": "image_url", "image_url": {"url": "http://x"}}]
    assert "content that is text" in said(ask(http, messages=[{"role": "user", "content": picture}]))


def test_the_usage_of_all_comes_last_where_it_is_asked_for(http):
    stream = {"stream": True, "n": 2, "stream_options": {"include_usage": True}}
    blocks = ask(http, **stream).text.split("\n\n")
    assert blocks[-2:] == ["data: [DONE]", ""]
    last = json.loads(blocks[-3].removeprefix("data: "))
    assert last["choices"] == [] and last["usage"]["completion_tokens"] == 6

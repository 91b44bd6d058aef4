"""The real chat server, as a process of its own, on tiny models: two columns at once, replaced, ended.

Each start imports torch, which takes seconds, so the tests of this file share one server and run in order.
"""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import zip_longest
from pathlib import Path

import openai
import psutil
import pytest
from filelock import FileLock, Timeout

from studio.errors import ServingError
from studio.serving import address as addresses
from studio.serving import client
from studio.specs import Sampling
from tests.engine.conftest import make
from tests.engine.test_chat import adapter
from tests.examples import finished_run

PATIENCE_S = 60
QUESTION = [{"role": "user", "content": "你好, who are you?"}]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A STUDIO_HOME and two bases, for all tests of this file; no server is left behind."""
    place = tmp_path_factory.mktemp("chat")
    patch = pytest.MonkeyPatch()
    patch.setenv("STUDIO_HOME", str(place / "home"))
    patch.setenv("CHAT_API_KEY", "sesame-open-4711")
    yield place
    client.stop()
    patch.undo()


@pytest.fixture(scope="module")
def base(place):
    return make("llama", place / "llama")


@pytest.fixture(scope="module")
def run(place, base):
    folder = finished_run("v1.0", sets=[f"model.name={base}"])
    folder.adapter.rmdir()
    adapter(base, folder.adapter)
    return folder


@pytest.fixture(scope="module")
def server(place, base, run):
    """(address, phases): started by two who ask at the same moment."""
    found, phases = [], []

    def ask():
        found.append(client.ensure(str(base), on_phase=phases.append))

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found, phases


def processes():
    """Chat servers among our children, zombies too."""
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):  # it ended since it was listed
            if child.status() == psutil.STATUS_ZOMBIE or "studio.serving.server" in child.cmdline():
                found.append(child)
    return found


def converse(address, *models, most=16, question=QUESTION):
    async def listen():
        requests = [(model, question) for model in models]
        return [delta async for delta in client.stream(address, requests, Sampling(max_tokens=most))]

    return asyncio.run(asyncio.wait_for(listen(), PATIENCE_S))


def text_of(deltas, column):
    return "".join(delta.text for delta in deltas if delta.column == column)


def is_free():
    try:
        with FileLock(addresses.lock_file(), timeout=0):
            return True
    except Timeout:
        return False


def until(condition, what):
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen within {PATIENCE_S} s"
        time.sleep(0.05)


def test_two_who_ask_at_once_share_one_process(server):
    found, phases = server
    assert len(found) == 2 and found[0] == found[1]
    assert len(processes()) == 1 and not is_free()
    assert phases[0] == "start"


def test_the_address_is_its_owners_alone_and_the_process_knows_no_secret(server):
    assert addresses.address_file().stat().st_mode & 0o077 == 0
    assert b"sesame" not in Path(f"/proc/{processes()[0].pid}/environ").read_bytes()


def test_base_and_run_answer_side_by_side(server, run):
    (address, _), _ = server
    deltas = converse(address, "base", run.id)
    last = {delta.column: delta for delta in deltas if delta.done}
    assert set(last) == {0, 1} and all(delta.error is None for delta in deltas)
    assert text_of(deltas, 0) and text_of(deltas, 0) != text_of(deltas, 1)
    assert all(delta.tokens > 0 and delta.first_token_s > 0 for delta in last.values())
    assert [text_of(converse(address, name), 0) for name in ("base", run.id)] == [
        text_of(deltas, 0),
        text_of(deltas, 1),
    ]


def test_the_names_that_can_be_asked_are_listed(server, run):
    assert client.models(server[0][0]) == ["base", run.id]


@pytest.fixture(scope="module")
def official(server):
    """OpenAI's own client."""
    address = server[0][0]
    with openai.OpenAI(base_url=f"{address.url}/v1", api_key=address.token, max_retries=0, timeout=PATIENCE_S) as found:
        yield found


def asking(model, **more):
    return {"model": model, "messages": QUESTION, "max_tokens": 16, "temperature": 0} | more


def test_openais_client_lists_streams_two_models_at_once_and_gets_usage(server, official, run):
    assert [each.id for each in official.models.list()] == ["base", run.id]
    whole = {name: official.chat.completions.create(**asking(name)) for name in ("base", run.id)}
    usage = {"include_usage": True}
    streams = {
        name: official.chat.completions.create(**asking(name, stream=True, stream_options=usage)) for name in whole
    }
    chunks = {name: [] for name in streams}
    for both in zip_longest(*streams.values()):
        for name, chunk in zip(streams, both, strict=True):
            if chunk is not None:
                chunks[name].append(chunk)
    for name, told in chunks.items():
        text = "".join(chunk.choices[0].delta.content or "" for chunk in told if chunk.choices)
        assert text == whole[name].choices[0].message.content
        assert told[0].choices[0].delta.role == "assistant" and told[-1].choices == []
        assert told[-1].usage.completion_tokens == whole[name].usage.completion_tokens > 0
        assert told[-1].usage.prompt_tokens == whole[name].usage.prompt_tokens > 5


def test_openais_client_gets_log_probabilities_stops_seeds_and_several_answers(official):
    first = official.chat.completions.create(**asking("base", logprobs=True, top_logprobs=2)).choices[0]
    content = first.logprobs.content
    assert len(content) > 4 and all(len(each.top_logprobs) == 2 for each in content)
    assert all(each.top_logprobs[0].logprob >= each.logprob - 1e-6 and each.logprob <= 0 for each in content)
    text = first.message.content
    cut = official.chat.completions.create(**asking("base", stop=[text[4:6]])).choices[0]
    assert cut.message.content == text[: text.index(text[4:6])] and cut.finish_reason == "stop"
    warm = asking("base", temperature=1.5, seed=4, n=2)
    one, other = (official.chat.completions.create(**warm) for _ in range(2))
    said = [[choice.message.content for choice in each.choices] for each in (one, other)]
    assert said[0] == said[1] and said[0][0] != said[0][1]


def test_openais_client_continues_texts(official):
    asked = {"model": "base", "temperature": 0, "logprobs": 1}
    both = official.completions.create(prompt=["Once upon", "The end"], max_tokens=5, **asked)
    alone = official.completions.create(prompt="The end", max_tokens=5, **asked)
    assert [choice.index for choice in both.choices] == [0, 1]
    assert both.choices[1].text == alone.choices[0].text
    likely = alone.choices[0].logprobs
    assert len(likely.tokens) == len(likely.token_logprobs) == len(likely.text_offset) <= 5
    streamed = official.completions.create(prompt="The end", max_tokens=5, stream=True, **asked)
    assert "".join(chunk.choices[0].text for chunk in streamed) == alone.choices[0].text


def test_openais_client_is_told_what_is_wrong(official):
    with pytest.raises(openai.BadRequestError, match="tools cannot be used here"):
        official.chat.completions.create(**asking("base", tools=[{"type": "function", "function": {"name": "f"}}]))
    with pytest.raises(openai.BadRequestError, match="Unknown job 'nothing'"):
        official.chat.completions.create(**asking("nothing"))
    with pytest.raises(openai.AuthenticationError):
        official.with_options(api_key="wrong").models.list()


def test_many_clients_come_and_go_and_each_gets_its_own_answer(official, run):
    questions = [("base", "Hello"), (run.id, "Hello"), ("base", "你好"), (run.id, "Why is the sky blue?")]

    def ask(number):
        name, text = questions[number % len(questions)]
        time.sleep(number % 5 * 0.02)
        asked = {"model": name, "messages": [{"role": "user", "content": text}], "temperature": 0}
        answer = official.chat.completions.create(**asked, max_tokens=8 + number)
        return answer.choices[0].message.content

    alone = [ask(number) for number in range(10)]
    with ThreadPoolExecutor(10) as pool:
        assert list(pool.map(ask, range(10))) == alone


def test_an_unknown_run_is_an_error_in_its_own_column(server):
    deltas = converse(server[0][0], "base", "nothing")
    errors = {delta.column: delta.error for delta in deltas if delta.done}
    assert errors[0] is None and "Unknown job 'nothing'" in errors[1] and text_of(deltas, 0)


def test_a_closed_iterator_frees_the_server_for_the_next_question(server):
    async def leave():
        stream = client.stream(server[0][0], [("base", QUESTION)], Sampling(max_tokens=400))
        async for _ in stream:
            break
        await stream.aclose()

    asyncio.run(leave())
    process = processes()[0]
    assert text_of(converse(server[0][0], "base"), 0)
    until(lambda: process.cpu_percent(0.3) < 20, "the end of the work that nobody reads")


def test_an_idle_server_takes_no_time(server):
    process = processes()[0]
    before = sum(process.cpu_times()[:2])
    time.sleep(1.5)
    assert sum(process.cpu_times()[:2]) - before <= 0.06


def test_a_base_that_cannot_load_says_why_and_is_not_in_the_way(server, place):
    before = processes()[0].pid
    missing = place / "missing"
    with pytest.raises(ServingError, match="There is no model folder"):
        client.ensure(str(missing))
    assert not psutil.pid_exists(before)
    assert client.running() is None and "no model folder" in (client._health(addresses.read()) or {})["error"]


def test_another_base_takes_the_place_while_somebody_listens(server, place, base):
    """Follows a failed load, whose server must not be waited for either."""
    began = time.monotonic()
    wanted = make("qwen2", place / "qwen2")
    address = client.ensure(str(base))
    heard = []

    async def listen():
        async for delta in client.stream(address, [("base", QUESTION)], Sampling(max_tokens=490)):
            heard.append(delta)

    listener = threading.Thread(target=lambda: asyncio.run(listen()))
    listener.start()
    until(lambda: heard, "the first word")
    first = processes()[0].pid
    other = client.ensure(str(wanted))
    listener.join(PATIENCE_S)
    assert heard[-1].done and "is ending" in heard[-1].error
    assert other.base != address.base and client.running() == other
    assert [process.pid for process in processes()] != [first] and len(processes()) == 1
    assert text_of(converse(other, "base", most=3), 0)
    assert time.monotonic() - began < PATIENCE_S


def test_an_early_end_of_the_process_is_told_at_once(server, place):
    began = time.monotonic()
    with pytest.raises(ServingError, match="ended while it was starting"):
        client.ensure("anything", quantization="nf5")
    assert time.monotonic() - began < 20 and is_free()


def test_stop_does_not_wait_for_a_base_that_loads_and_leaves_no_process(server, base):
    told = []

    def ask():
        try:
            client.ensure(str(base))
        except ServingError as error:
            told.append(str(error))

    thread = threading.Thread(target=ask)
    thread.start()
    until(lambda: addresses.read() and client.running(), "the address")
    client.stop()
    assert is_free() and client.running() is None and not addresses.address_file().exists()
    until(lambda: not processes(), "the end of the process")
    thread.join(PATIENCE_S)
    assert not thread.is_alive() and "ended while it was starting" in told[0]

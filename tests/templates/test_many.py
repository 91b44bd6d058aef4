"""Many examples at once: the same as one by one, in processes that end with their work, or when they must."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import psutil
import pytest
from tokenizers import Tokenizer

from studio.data.example import Example, Message, ToolCall
from studio.errors import TemplateError
from studio.home import CHECKOUT
from studio.templates import CUTS, Policy, Template, TextTokenizer, encode, load
from studio.templates.many import BATCH, FEW, MOST_UNFINISHED, Encoder, Limits, batches
from studio.templates.packed import IGNORED, Packed, pack, request, requested
from tests.engine.conftest import tokenizer as trained

POLICY = Policy(max_length=80, truncation="cut_source")
ENDLESS = "{% if 'loop' in messages[0].content %}{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}"
ENDLESS += "{% endfor %}{% endif %}"
GREEDY = (
    "{% if 'grow' in messages[0].content %}{% set n = namespace(t='x' * 90000) %}{% for a in range(40) %}"
    "{% set n.t = n.t ~ n.t %}{% endfor %}{{ n.t }}{% endif %}"
)


@pytest.fixture(scope="module")
def reader():
    specials = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    return TextTokenizer(Tokenizer.from_str(trained()), specials)


def asked(*contents):
    return [Example(messages=(Message("user", each), Message("assistant", "Yes."))) for each in contents]


def strange(begin):
    """A template of a stranger that begins with something hostile."""
    return Template("hostile", begin + load("chatml").text, stop=("<|im_end|>",))


MIXED = [
    *asked("Hello", "你好 👋", "what is <|im_end|> for?", "a long question " * 40),
    Example(messages=(Message("user", "a"), Message("assistant", "b", train=False), Message("user", "c"))),
    Example(
        messages=(
            Message("user", "a"),
            Message("assistant", "b"),
            Message("user", "c"),
            Message("assistant", "d" * 300),
        )
    ),
    Example(text="plain text, learned whole"),
    Example(
        messages=(
            Message("user", "add"),
            Message("assistant", "", (ToolCall("add", '{"a": 1}', "call1"),)),
            Message("tool", "2", name="add", call_id="call1"),
            Message("assistant", "2", thought="easy"),
        ),
        tools='[{"type": "function", "function": {"name": "add"}}]',
    ),
    Example(messages=(Message("system", "Be kind."), Message("user", "x"), Message("assistant", "<think>a</think>y"))),
]


def one_by_one(examples, template, reader, policy=POLICY):
    for example in examples:
        try:
            encoded = encode(example, template, reader, policy)
        except TemplateError as error:
            yield str(error)
        else:
            flags = zip(encoded.input_ids, encoded.supervised, strict=True)
            cut = ("", *CUTS).index(encoded.cut)
            labels = [number if on else IGNORED for number, on in flags]
            yield encoded.input_ids, labels, cut, encoded.escaped, encoded.total, encoded.learns


def unpacked(packed):
    ids, labels, place = packed.ids.tolist(), packed.labels().tolist(), 0
    names = ("kept", "cut", "escaped", "total", "learns")
    for number, (kept, *others) in enumerate(zip(*(packed.column(name).tolist() for name in names), strict=True)):
        if number in packed.refusals:
            yield packed.refusals[number]
        else:
            yield ids[place : place + kept], labels[place : place + kept], *others
        place += kept


@pytest.mark.parametrize("template", ["qwen", "gemma", "llama2"])
@pytest.mark.parametrize("processes", [0, 1])
def test_each_example_is_what_it_is_when_encoded_alone(reader, template, processes):
    with Encoder(load(template), reader, POLICY, examples=9, processes=processes) as encoder:
        found = [encoder.submit(MIXED), encoder.submit(MIXED[:1])]
        packed = [each.result() for each in found]
    expected = list(one_by_one(MIXED, load(template), reader))
    assert list(unpacked(packed[0])) == expected and list(unpacked(packed[1])) == expected[:1]
    assert any(isinstance(each, str) for each in expected) == bool(packed[0].refusals)


def test_measured_examples_hold_no_tokens_but_how_many_are_answers(reader):
    with Encoder(load("qwen"), reader, POLICY, examples=9, measured=True, processes=1) as encoder:
        packed = encoder.submit(MIXED).result()
    assert len(packed.ids) == 0 and len(packed.ranges) == 0
    expected = []
    for example in MIXED:
        try:
            whole = encode(example, load("qwen"), reader, replace(POLICY, max_length=None))
        except TemplateError:
            expected.append(0)
            continue
        expected.append(sum(any(a <= start < b for a, b in whole.answers) for start, _ in whole.offsets))
    assert packed.column("answered").tolist() == expected and packed.column("answered").any()


def test_packed_examples_survive_the_pipe(reader):
    parts = [pack(MIXED, load("gemma"), reader, POLICY), pack(MIXED[:2], load("gemma"), reader, POLICY)]
    for each in parts:
        assert list(unpacked(Packed.from_bytes(each.to_bytes()))) == list(unpacked(each))
    together = Packed.joined(parts)
    assert list(unpacked(together)) == [row for each in parts for row in unpacked(each)]
    cuts = [each.cuts() for each in parts]
    assert together.cuts() == {kind: cuts[0][kind] + cuts[1][kind] for kind in CUTS} and any(cuts[0].values())


def test_a_request_holds_the_very_same_examples():
    halves = asked("half of a pair: \ud83d")
    for examples in (MIXED, halves, [Example(kind="unpaired", label=True, messages=(Message("user", "a"),))]):
        found, limit_s = requested(request(examples, 2.5))
        assert list(found) == examples and limit_s == 2.5


def test_batches_are_full_but_for_long_examples():
    long = asked("x" * 1_200_000)[0]
    sizes = [len(examples) for _, examples in batches((n, MIXED[0]) for n in range(BATCH + 3))]
    assert sizes == [BATCH, 3]
    assert [tags for tags, _ in batches((n, long) for n in range(5))] == [[0, 1], [2, 3], [4]]


def test_few_examples_start_no_process(reader):
    with Encoder(load("qwen"), reader, POLICY, examples=FEW) as encoder:
        assert encoder.pids == [] and encoder.ahead == 0


def test_an_example_that_never_ends_is_refused_and_the_others_are_not(reader):
    template = strange(ENDLESS)
    limits = Limits(example_s=1.0, batch_s=1.0)
    with Encoder(template, reader, POLICY, examples=9, processes=1, limits=limits) as encoder:
        packed = encoder.submit(asked("a", "loop", "b")).result()
        after = encoder.submit(asked("c")).result()
        (pid,) = encoder.pids
    assert list(packed.refusals) == [1] and packed.unfinished == (1,)
    assert "did not finish within 1 s" in packed.refusals[1]
    assert (packed.column("learns") > 0).tolist() == [True, False, True] and not after.refusals
    assert not psutil.pid_exists(pid)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux holds to the limit of memory")
def test_an_example_that_fills_the_memory_is_refused_and_the_others_are_not(reader):
    limits = Limits(memory_mib=200)
    with Encoder(strange(GREEDY), reader, POLICY, examples=9, processes=1, limits=limits) as encoder:
        packed = encoder.submit(asked("a", "grow", "b")).result()
    assert list(packed.refusals) == [1] == list(packed.unfinished)
    assert "200 MiB of memory" in packed.refusals[1]


def test_after_some_that_never_end_the_others_are_not_tried(reader):
    limits = Limits(example_s=0.5, batch_s=0.5)
    with Encoder(strange(ENDLESS), reader, POLICY, examples=9, processes=1, limits=limits) as encoder:
        future = encoder.submit(asked(*["loop"] * 100))
        with pytest.raises(TemplateError, match=f"for {MOST_UNFINISHED} rows, so the others were not tried"):
            future.result()


def test_what_is_wrong_in_a_process_is_told_whole(reader):
    with (
        Encoder(load("qwen"), reader, POLICY, examples=9, processes=1) as encoder,
        pytest.raises(RuntimeError, match="Traceback(.|\n)*JSONDecodeError"),
    ):
        encoder.submit([replace(MIXED[0], tools="{ that is no JSON")]).result()


def test_no_process_is_left_when_the_work_is_given_up_in_the_middle(reader):
    with Encoder(strange(ENDLESS), reader, POLICY, examples=9, processes=2) as encoder:
        for _ in range(5):
            encoder.submit(asked("loop"))
        pids = encoder.pids
        time.sleep(1.5)
        started = time.monotonic()
    assert time.monotonic() - started < 3 and len(pids) == 2
    assert not any(psutil.pid_exists(pid) for pid in pids)


PARENT = """
import sys, time
from tokenizers import Tokenizer
from studio.data.example import Example, Message
from studio.templates import Policy, Template, TextTokenizer
from studio.templates.many import Encoder
from tests.engine.conftest import tokenizer
from tests.templates.test_many import asked, strange, ENDLESS
reader = TextTokenizer(Tokenizer.from_str(tokenizer()), {"eos_token": "<|im_end|>"})
encoder = Encoder(strange(ENDLESS), reader, Policy(), examples=9, processes=2)
encoder.submit(asked("a")).result()
print(*encoder.pids, flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL on Windows")
def test_processes_end_with_a_parent_that_was_killed():
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True, cwd=CHECKOUT)
    try:
        pids = [int(each) for each in parent.stdout.readline().split()]
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        parent.stdout.close()
    deadline = time.monotonic() + 10
    while any(psutil.pid_exists(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(pids) == 2 and not any(psutil.pid_exists(pid) for pid in pids)

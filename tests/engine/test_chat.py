"""One base and several adapters in one chat: each answers as it would alone, in whole characters."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from studio.data.example import Message
from studio.engine.chat import Chat, Turn
from studio.engine.generate import BASE, Request, Token, complete
from studio.engine.models.load import RECORD, load_tokenizer
from studio.engine.models.resolve import identity
from studio.errors import ModelError, ServingError, StudioError
from studio.specs import ModelSpec, QuantizationSpec, Sampling, TrainSpec, parse
from tests.engine.conftest import make

QUESTION = [Message("user", "你好, who are you?")]
GREEDY = Sampling(max_tokens=12)
WEIGHTS = "adapter_model.safetensors"


def adapter(base, place, *, seed=1, **options):
    """A random adapter, strong enough to change every answer."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM", **options)
    get_peft_model(model, config).save_pretrained(place)
    # without a template, so that each test may say which one the run has
    (place / RECORD).write_text(json.dumps({"base": "tiny", "identity": identity(base)}), encoding="utf-8")
    return place


@pytest.fixture(scope="module")
def one(tiny, tmp_path_factory):
    return adapter(tiny(), tmp_path_factory.mktemp("one") / "adapter", seed=1)


@pytest.fixture(scope="module")
def two(tiny, tmp_path_factory):
    return adapter(tiny(), tmp_path_factory.mktemp("two") / "adapter", seed=2)


@pytest.fixture
def chat(tiny):
    return load(tiny())


def load(folder):
    return Chat(ModelSpec(name=str(folder), dtype="fp32"), QuantizationSpec(kind="none"), lambda *_: None)


def trained(**template):
    return parse(TrainSpec, {"template": template})


def answer(chat, asked):
    """The pieces of all answers, each under its place among those asked, while nobody else is being answered."""
    places = {number: place for place, number in enumerate(chat.begin(asked))}
    while chat.busy:
        for piece in chat.step():
            if piece.error is not None:
                raise piece.error
            yield replace(piece, turn=places[piece.turn])


def say(chat, *models, messages=QUESTION, sampling=GREEDY):
    """What each model says, asked all at once."""
    texts = [""] * len(models)
    for piece in answer(chat, [chat.request(Turn(model, messages, sampling)) for model in models]):
        texts[piece.turn] += piece.text
    return texts


class Scripted:
    """A decoder that says what stands in a script, in the place of a model."""

    def __init__(self, script):
        self.script = list(script)

    @property
    def busy(self):
        return bool(self.script)

    def add(self, requests):
        return list(range(len(requests)))

    def step(self):
        return self.script.pop(0)


def test_base_and_adapters_in_one_batch_answer_as_each_alone(chat, one, two):
    before = say(chat, "base")
    chat.add("a", one, trained())
    chat.add("b", two, trained())
    together = say(chat, "base", "a", "b", "base")
    assert together == [*before, *say(chat, "a"), *say(chat, "b"), *before]
    assert len(set(together)) == 3, "each adapter must change the answer"


def test_the_base_answers_as_the_plain_model_does(chat, tiny, one):
    chat.add("a", one, trained())
    model = AutoModelForCausalLM.from_pretrained(tiny(), dtype=torch.float32).eval()
    prompt = chat.request(Turn("base", QUESTION)).request
    (ids,) = complete(model, [Request(prompt.prompt, None, GREEDY, prompt.stop)])
    assert say(chat, "base") == [load_tokenizer(tiny())[1].decode(ids)]


def test_names_with_dots_that_differ_only_there_are_two_runs(chat, one, two):
    chat.add("v1.0@20", one, trained())
    chat.add("v1_0@20", two, trained())
    assert chat.names == ["base", "v1.0@20", "v1_0@20"]
    first, second = say(chat, "v1.0@20", "v1_0@20")
    assert first != second


def test_an_adapter_that_comes_while_the_base_answers_does_not_change_that_answer(chat, one):
    (alone,) = say(chat, "base")
    pieces = answer(chat, [chat.request(Turn("base", QUESTION, GREEDY))])
    text = next(pieces).text
    chat.add("a", one, trained())
    assert text + "".join(piece.text for piece in pieces) == alone
    assert say(chat, "a") != [alone]


def test_a_dora_adapter_answers_beside_the_base_and_another(chat, tiny, one, tmp_path):
    chat.add("a", one, trained())
    (plain,), (before,) = say(chat, "base"), say(chat, "a")
    pieces = answer(chat, [chat.request(Turn("base", QUESTION, GREEDY))])
    text = next(pieces).text
    chat.add("d", adapter(tiny(), tmp_path / "dora", seed=5, use_dora=True), trained())
    assert text + "".join(piece.text for piece in pieces) == plain
    together = say(chat, "base", "a", "d")
    assert together[:2] == [plain, before] and together[2] not in (plain, before)


@pytest.mark.parametrize("text", ["你好，世界", "ok 👍🏽 fine", "naïve → 한국어", "plain", "👩‍👩‍👧‍👦"])
def test_streamed_characters_arrive_whole(chat, text):
    ids = chat._text_tokenizer.ids(text)
    assert len(ids) > 1 or text == "plain"
    script = [[Token(0, token)] for token in ids] + [[Token(0, 2, "stop")]]
    chat._decoder = Scripted(script)
    pieces = list(answer(chat, [chat.request(Turn("base", QUESTION))]))
    assert "".join(piece.text for piece in pieces) == text
    assert not any("\ufffd" in piece.text for piece in pieces)
    assert pieces[-1].finish == "stop" and pieces[-1].tokens == len(ids)


def test_an_answer_that_ends_inside_a_character_shows_that_it_does(chat):
    ids = chat._text_tokenizer.ids("👩‍👩‍👧‍👦")
    cut = next(n for n in range(1, len(ids)) if chat._text_tokenizer.decode(ids[:n]).endswith("\ufffd"))
    script = [[Token(0, token, "length" if n == cut else None)] for n, token in enumerate(ids[:cut], start=1)]
    chat._decoder = Scripted(script)
    text = "".join(piece.text for piece in answer(chat, [chat.request(Turn("base", QUESTION))]))
    assert text == chat._text_tokenizer.decode(ids[:cut])


def test_streamed_text_is_the_text_of_all_tokens(chat, tiny):
    sampling = Sampling(max_tokens=60, temperature=2.0, seed=3)  # random bytes: many torn characters
    request = chat.request(Turn("base", QUESTION, sampling))
    (ids,) = complete(chat._model, [request.request])
    pieces = list(answer(chat, [request]))
    assert "".join(piece.text for piece in pieces) == chat._text_tokenizer.decode(ids)
    assert (pieces[-1].tokens, pieces[-1].prompt_tokens) == (len(ids), len(request.request.prompt))


def test_a_cancelled_turn_leaves_and_the_other_goes_on(chat):
    gone, whole = SimpleNamespace(yet=False), say(chat, "base")
    turns = [Turn("base", QUESTION, GREEDY, lambda: gone.yet), Turn("base", QUESTION, GREEDY)]
    requests = [chat.request(turn) for turn in turns]
    ends, text = {}, ""
    for piece in answer(chat, requests):
        gone.yet = True
        text += piece.text if piece.turn == 1 else ""
        if piece.finish:
            ends[piece.turn] = (piece.finish, piece.tokens)
    assert ends[0][0] == "cancelled" and ends[0][1] < 3
    assert ends[1][0] in ("length", "stop") and text == whole[0]


def test_a_model_that_was_never_added_is_refused(chat, one):
    chat.add("alpha", one, trained())
    with pytest.raises(ServingError, match="Unknown model 'alpa'. Did you mean 'alpha'"):
        chat.request(Turn("alpa", QUESTION))


def test_the_system_text_and_template_of_a_run_are_its_own(chat, one):
    chat.add("a", one, trained(system="Answer in verse."))
    text = chat._text_tokenizer.decode
    assert "Answer in verse." in text(chat.request(Turn("a", QUESTION)).request.prompt)
    assert "Answer in verse." not in text(chat.request(Turn("base", QUESTION)).request.prompt)


def test_f41_an_adapter_of_another_base_of_the_same_shape_is_refused(chat, tmp_path):
    other = make("llama", tmp_path / "other", seed=9)
    before = say(chat, "base")
    with pytest.raises(ModelError, match="belongs to tiny"):
        chat.add("a", adapter(other, tmp_path / "adapter"), trained())
    assert chat.names == ["base"] and say(chat, "base") == before


def drop(values):
    del values[next(iter(values))]


def spoil(values):
    next(iter(values.values())).fill_(float("nan"))


def widen(values):
    key = list(values)[-1]
    values[key] = torch.ones(values[key].shape[0], values[key].shape[1] + 1)


@pytest.mark.parametrize(
    ("damage", "words"), [(drop, "lacks 1 tensors"), (spoil, "not numbers"), (widen, "with shape")]
)
@pytest.mark.parametrize("first", [True, False], ids=["alone", "beside another"])
def test_f42_f45_f46_a_damaged_adapter_is_refused_and_changes_nothing(chat, one, two, tmp_path, damage, words, first):
    names = ["base"]
    if not first:
        chat.add("good", one, trained())
        names.append("good")
    before = say(chat, *names)
    broken = shutil.copytree(two, tmp_path / "broken")
    values = load_file(broken / WEIGHTS)
    damage(values)
    save_file(values, broken / WEIGHTS)
    with pytest.raises(ModelError, match=words):
        chat.add("bad", broken, trained())
    assert chat.names == names and say(chat, *names) == before
    chat.add("two", two, trained())
    assert say(chat, *names, "two")[:-1] == before


@pytest.mark.parametrize("name", [WEIGHTS, "adapter_config.json"])
def test_an_adapter_with_a_file_cut_short_is_an_error_in_words(chat, one, tmp_path, name):
    broken = shutil.copytree(one, tmp_path / "broken")
    (broken / name).write_bytes((broken / name).read_bytes()[:40])
    with pytest.raises(ModelError):
        chat.add("bad", broken, trained())
    chat.add("good", one, trained())


def test_a_conversation_beyond_the_positions_says_so_and_one_just_below_is_cut_there(tiny):
    chat = load(tiny("gpt2"))  # its positions are a table: one token more is an index error
    room = 512 - len(chat.request(Turn("base", [Message("user", "")])).request.prompt)
    words = chat._text_tokenizer.decode(chat._text_tokenizer.ids("hello ")[:1]) * (room - 8)
    almost = chat.request(Turn("base", [Message("user", words)], Sampling(max_tokens=100)))
    assert 0 < 512 - len(almost.request.prompt) == almost.request.sampling.max_tokens < 100
    assert list(answer(chat, [almost]))[-1].finish
    with pytest.raises(ServingError, match="tokens long, and the model has 512 positions"):
        chat.request(Turn("base", [Message("user", words * 2)]))


def test_a_template_that_refuses_a_conversation_says_so_before_anything_is_decoded(chat, one):
    chat.add("a", one, trained(name="alpaca"))
    with pytest.raises(StudioError, match="no place for tool results"):
        chat.request(Turn("a", [*QUESTION, Message("tool", "18 degrees")]))
    with pytest.raises(StudioError, match="no-such-template"):
        chat.add("b", one, trained(name="no-such-template"))
    assert chat.names == ["base", "a"]
    assert chat.request(Turn("base", QUESTION)).request.adapter == BASE


def test_the_record_of_the_base_is_read_in_words_when_it_is_damaged(chat, one, tmp_path):
    broken = shutil.copytree(one, tmp_path / "broken")
    (broken / "studio.json").write_text(json.dumps({"base": "x"}))
    with pytest.raises(ModelError, match=r"studio\.json"):
        chat.add("bad", broken, trained())


def texts_of(chat, turns):
    """All that each turn says, begun a step apart."""
    said, waiting = {}, list(turns)
    while waiting or chat.busy:
        if waiting:
            (number,) = chat.begin([chat.request(waiting.pop(0))])
            said[number] = []
        for piece in chat.step():
            said[piece.turn].append(piece)
    return ["".join(piece.text for piece in pieces) for pieces in said.values()]


def test_turns_that_come_later_share_the_steps_and_say_what_they_say_alone(chat, one, two):
    chat.add("a", one, trained())
    chat.add("b", two, trained())
    long = [Message("user", "Tell me a much longer story about a fox, please. " * 3)]
    turns = [Turn(name, messages, GREEDY) for name in ("base", "a", "b", "base") for messages in (QUESTION, long)]
    alone = [say(chat, turn.model, messages=turn.messages)[0] for turn in turns]
    assert texts_of(chat, turns) == alone
    for turn in turns[:3]:
        chat.begin([chat.request(turn)])
        chat.step()
    assert len(chat._decoder._batches) == 1


def with_stop(chat, stop, **more):
    pieces = list(answer(chat, [chat.request(Turn("base", QUESTION, Sampling(max_tokens=30), stop=stop, **more))]))
    return "".join(piece.text for piece in pieces), pieces


def test_an_answer_ends_before_the_first_of_its_stop_texts(chat):
    whole, _ = with_stop(chat, ())
    assert len(whole) > 12
    for stop in (whole[5:9], whole[7], whole[3:]):
        text, pieces = with_stop(chat, ("never said", stop))
        assert text == whole[: whole.index(stop)] and pieces[-1].finish == "stop"
        assert not any(stop[0] in piece.text[-1:] and stop in whole[: len(text) + 1] for piece in pieces)
    assert with_stop(chat, (whole + "x",))[0] == whole, "what only began like a stop text is shown in the end"
    assert not chat.busy


def test_log_probabilities_are_those_of_the_model_and_cover_the_text(chat, tiny):
    text, pieces = with_stop(chat, (), logprobs=3)
    likely = [each for piece in pieces for each in piece.likely]
    asked = chat.request(Turn("base", QUESTION, Sampling(max_tokens=30))).request
    (ids,) = complete(chat._model, [asked])
    model = AutoModelForCausalLM.from_pretrained(tiny(), dtype=torch.float32).eval()
    logits = model(torch.tensor([[*asked.prompt, *ids]])).logits[0, len(asked.prompt) - 1 : -1]
    wanted = logits.log_softmax(-1)[range(len(ids)), ids]
    assert [each.logprob for each in likely] == pytest.approx(wanted.tolist(), abs=1e-4)
    assert all(len(each.top) == 3 and each.top[0][1] >= each.logprob - 1e-6 for each in likely)
    pieces = with_stop(chat, (text[6:9],), logprobs=0)[1]
    told = [each for piece in pieces for each in piece.likely]
    assert 0 < len(told) < len(likely) and all(each.top == () for each in told)


def test_a_plain_text_goes_on_without_a_template(chat):
    ids = chat._text_tokenizer.backend.encode("Once upon a time").ids
    asked = [chat.request(Turn("base", prompt=prompt, sampling=GREEDY)) for prompt in ("Once upon a time", ids)]
    assert [each.request.prompt for each in asked] == [ids, ids]
    for prompt, words in (
        ("", "empty"),
        ([], "empty"),
        ([10**9], "token ids of this model go from 0"),
        ([-1], "go from"),
    ):
        with pytest.raises(ServingError, match=words):
            chat.request(Turn("base", prompt=prompt))


def test_a_batch_that_fails_leaves_the_others(chat, monkeypatch):
    first = chat.begin([chat.request(Turn("base", QUESTION, GREEDY))])
    chat.step()
    bad = chat.request(Turn("base", QUESTION, GREEDY))
    bad.request.prompt[:] = [10**6]  # no such token
    (second,) = chat.begin([bad])
    pieces = chat.step()
    assert [(piece.turn, piece.finish) for piece in pieces if piece.finish] == [(second, "failed")]
    assert isinstance(pieces[-1].error, IndexError)
    while chat.busy:
        pieces = chat.step()
    assert (pieces[-1].turn, pieces[-1].finish in ("length", "stop")) == (first[0], True)

"""From datasets to tokenised rows: the same rows as encoded one by one, mixed, counted, and kept on disk."""

import json
import shutil
from functools import partial

import psutil
import pytest

from studio.data import registry
from studio.engine.rows import conversations
from studio.engine.rows.conversations import IGNORED, examples_of, prepare
from studio.errors import DataError, TemplateError
from studio.events import Note, Phase
from studio.specs import TrainSpec, parse
from studio.templates import Template, TextTokenizer, encode, load, many
from studio.templates.many import Encoder, Limits
from studio.templates.pieces import Pieces


@pytest.fixture
def added(studio_home, tmp_path):
    def add(name, rows):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)), "utf-8")
        return registry.add(path, name).name

    return add


@pytest.fixture
def tokenizer(tiny):
    return TextTokenizer.from_folder(tiny())


@pytest.fixture
def ready(tokenizer, tmp_path):
    """ready(datasets=…) -> Rows; ready.told holds the phases."""

    def go(template="chatml", stopping=lambda: False, **data):
        spec = parse(TrainSpec, {"data": {"max_length": 64} | data, "template": {"name": template}})
        go.told = []
        return prepare(spec, tokenizer, load(template), go.told.append, place=tmp_path / "rows", stopping=stopping)

    return go


def asked(count, name="q"):
    return [{"prompt": f"{name}{n}", "completion": f"a{n}"} for n in range(count)]


def test_rows_are_those_that_are_encoded_one_by_one(added, ready, tokenizer):
    name = added("a", asked(1203))
    rows = ready(datasets=[name])
    expected = [encode(example, load("chatml"), tokenizer) for _, example in registry.outcomes(registry.get(name))]
    assert list(rows.train["input_ids"]) == [each.input_ids for each in expected]
    assert list(rows.train["labels"]) == [
        [token if learned else IGNORED for token, learned in zip(each.input_ids, each.supervised, strict=True)]
        for each in expected
    ]
    assert rows.held is None and rows.hashes == {name: registry.get(name).sha256}
    tokenized = [phase.done for phase in ready.told if isinstance(phase, Phase) and phase.name == "tokenize"]
    assert tokenized == [256, 512, 768, 1024, 1203]


def test_weights_mix_the_rows_of_each_dataset_by_share(added, ready, tokenizer):
    names = [added("a", asked(30)), added("b", asked(8, "p"))]
    once = ready(datasets=names, weights=[3, 1])
    texts = [tokenizer.decode(ids) for ids in once.train["input_ids"]]
    assert len(texts) == len(set(texts)) == 32 and sum("\np" in text for text in texts) == 8
    assert [each.mixed for each in once.counts.values()] == [24, 8]
    again = ready(datasets=names, weights=[1, 1], repeat=True, shuffle=False)
    texts = [tokenizer.decode(ids) for ids in again.train["input_ids"]]
    assert [text.splitlines()[1][:2] for text in texts[:4]] == ["q0", "p0", "q1", "p1"]
    assert (len(texts), len(set(texts))) == (60, 38)


def test_held_out_rows_are_in_no_mix(added, ready, tokenizer):
    rows = ready(datasets=[added("a", asked(30)), added("b", asked(30, "p"))], weights=[5, 1], validation_share=0.2)
    train, held = ({tokenizer.decode(ids) for ids in each["input_ids"]} for each in (rows.train, rows.held))
    assert len(held) == 12 and not train & held


def test_every_row_is_counted_once(added, ready):
    long = {"prompt": "why " * 100, "completion": "a"}
    odd = {"messages": [{"role": "user", "content": "x"}, {"role": "user", "content": "y"}]}
    odd["messages"].append({"role": "assistant", "content": "z"})
    quoting = {"prompt": "what is <|im_end|>?", "completion": "b"}
    names = [added("a", [*asked(5), long, quoting]), added("b", [odd, *[{**odd, "messages": odd["messages"][1:]}] * 3])]
    rows = ready("gemma", datasets=names, max_samples=7, skip_faulty=True)
    first, second = rows.counts.values()
    assert (first.rows, first.trained, first.skipped, first.truncated, first.escaped) == (7, 6, 1, 1, 1)
    assert (second.rows, second.trained, second.unwritable) == (4, 3, 1)
    assert rows.total("unwritable") == 1 and "alternate" in rows.refusal
    assert rows.plain_counts()["a"]["trained"] == 6


def test_classified_and_preferred_rows_are_learned_by_their_answers(added, ready, tokenizer):
    preferred = [{"prompt": f"q{n}", "chosen": f"good{n}", "rejected": f"bad{n}"} for n in range(3)]
    rows = ready(datasets=[added("p", preferred)])
    texts = [tokenizer.decode(ids) for ids in rows.train["input_ids"]]
    assert [text.splitlines()[-1] for text in texts] == [f"good{n}<|im_end|>" for n in range(3)]
    assert not any("bad" in text for text in texts)


def test_what_long_rows_lose_is_counted_by_kind(added, ready):
    said = "why " * 60
    talk = [{"role": role, "content": f"{said}{turn}"} for turn in range(2) for role in ("user", "assistant")]
    long = {"messages": [*talk, {"role": "user", "content": "so?"}, {"role": "assistant", "content": "so."}]}
    names = [added("a", [*asked(3), {"prompt": "why " * 100, "completion": "a"}]), added("b", [long])]
    expected = {
        "cut_answer": {"cut_answer": 2, "skipped": 2, "trained": 3},
        "drop_turns": {"cut_turns": 1, "cut_answer": 1, "skipped": 1, "trained": 4},
        "cut_source": {"cut_source": 1, "cut_answer": 1, "trained": 5},
        "drop_row": {"dropped": 2, "skipped": 2, "trained": 3},
    }
    for truncation, counted in expected.items():
        rows = ready(datasets=names, truncation=truncation)
        kinds = ("cut_answer", "cut_turns", "cut_source", "dropped", "skipped", "trained")
        assert {kind: rows.total(kind) for kind in kinds if rows.total(kind)} == counted
        assert rows.total("truncated") == 2 == sum(rows.total(kind) for kind in kinds[:4])


def test_the_same_rows_are_not_tokenised_twice(added, ready, tokenizer, monkeypatch):
    names = [added("a", asked(40)), added("b", [*asked(8, "p"), {"prompt": "why " * 100, "completion": "a"}])]
    first = ready(datasets=names, validation_share=0.2)
    told = ready.told
    for kind in (TextTokenizer, Pieces):
        monkeypatch.setattr(kind, "encode", None)  # nothing is tokenised from here on
    again = ready(datasets=names, validation_share=0.2)
    assert [first.train[:], first.held[:]] == [again.train[:], again.held[:]]
    assert (first.counts, first.hashes, first.told) == (again.counts, again.hashes, again.told)
    assert not any(isinstance(event, Note) for event in told)
    assert [event.text for event in ready.told if isinstance(event, Note)] == [
        "Tokenised rows of an earlier run are used: 48 rows."
    ]
    mixed = ready(datasets=names, validation_share=0.2, weights=[1, 3])
    assert mixed.counts["b"].mixed > 0 and len(mixed.train) < len(first.train)
    with pytest.raises(TypeError):
        ready(datasets=names, validation_share=0.1)


def test_rows_are_the_same_from_processes_beside_this_one(added, ready, monkeypatch, studio_home):
    name = added("a", [*asked(600), {"prompt": "what is <|im_end|>?", "completion": "why " * 90}])
    here = ready(datasets=[name], validation_share=0.1)
    shutil.rmtree(studio_home / "cache")
    monkeypatch.setattr(many, "FEW", 0)
    there = ready(datasets=[name], validation_share=0.1)
    assert [here.train[:], here.held[:], here.counts] == [there.train[:], there.held[:], there.counts]


def test_rows_are_made_again_where_one_took_too_long(added, tokenizer, tmp_path, monkeypatch):
    loop = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    text = "{% if messages[0].content == 'q3' %}" + loop + "{% endif %}" + load("chatml").text
    spec = parse(TrainSpec, {"data": {"datasets": [added("a", asked(9))]}})
    monkeypatch.setattr(conversations, "Encoder", partial(Encoder, processes=1, limits=Limits(0.5, 0.5)))
    told = []
    for place in ("first", "second"):
        rows = prepare(spec, tokenizer, Template("mine", text), told.append, place=tmp_path / place)
        assert (rows.total("trained"), rows.total("unwritable")) == (8, 1) and "did not finish" in rows.refusal
    assert not any(isinstance(event, Note) for event in told)


def test_a_stop_leaves_no_process(added, ready, monkeypatch):
    name = added("a", asked(2000))
    monkeypatch.setattr(many, "FEW", 0)
    before = set(psutil.Process().children())  # of other tests
    seen = []

    def stopping():
        seen.append([child.pid for child in psutil.Process().children() if child not in before])
        return any(isinstance(event, Phase) and event.name == "tokenize" and event.done for event in ready.told)

    assert ready(datasets=[name], stopping=stopping) is None
    assert seen[-1] and not any(psutil.pid_exists(pid) for pid in seen[-1])


def test_rows_that_changed_on_disk_are_refused_although_their_tokens_are_kept(added, ready):
    name = added("a", asked(5))
    ready(datasets=[name])
    path = registry.get(name).path
    path.write_bytes(path.read_bytes().replace(b"q1", b"q9"))
    with pytest.raises(DataError, match="changed since it was added"):
        ready(datasets=[name])


def test_a_stop_ends_the_reading(added, ready):
    assert ready(datasets=[added("a", asked(500))], stopping=lambda: True) is None


def test_a_template_that_can_write_no_row_is_told_with_its_reason(added, ready):
    talk = {"messages": [{"role": "user", "content": "x"}] * 2 + [{"role": "assistant", "content": "z"}]}
    with pytest.raises(TemplateError, match="'gemma' can write none of the rows.*alternate"):
        ready("gemma", datasets=[added("a", [talk] * 3)])


def test_a_dataset_without_a_row_for_the_mix_is_named(added, ready):
    names = [added("a", asked(3)), added("b", [{"prompt": "why " * 100, "completion": "a"}])]
    with pytest.raises(DataError, match="'b' has no row left to mix"):
        ready(datasets=names, weights=[1, 1])


def test_examples_are_the_held_out_ones_or_else_those_of_training(added):
    name = added("a", asked(20))
    data = parse(TrainSpec, {"data": {"datasets": [name], "validation_share": 0.2}}).data
    examples, held = examples_of(data)
    assert held and len(examples) == 4
    examples, held = examples_of(data.model_copy(update={"validation_share": 0.0}), most=3)
    assert not held and [each.messages[0].content for each in examples] == ["q0", "q1", "q2"]

"""What an audit says of tokens is what a run then does with the rows."""

import json
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from studio import specs
from studio.data import registry
from studio.data.audit import Report, audit
from studio.engine.rows.conversations import IGNORED, prepare
from studio.home import CHECKOUT
from studio.specs import AuditSpec, TrainSpec
from studio.templates import TextTokenizer, load
from tests.engine.conftest import tokenizer

GSM8K = CHECKOUT.parent / "shared" / "data" / "math" / "gsm8k_train.jsonl"
CHAT = CHECKOUT.parent / "shared" / "data" / "chat" / "kdconv_film_dev_openai_messages.jsonl"


@pytest.fixture(scope="module")
def reader():
    specials = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    return TextTokenizer(Tokenizer.from_str(tokenizer()), specials)


@pytest.mark.parametrize(("path", "cutoff"), [(GSM8K, 200), (CHAT, 1500)], ids=["gsm8k", "kdconv"])
@pytest.mark.parametrize(
    ("supervise", "share", "rows"),
    [("assistant", 0.0, 1000), ("assistant", 0.2, 100), ("last", 0.0, 100), ("all", 0.2, 100)],
)
def test_an_audit_counts_row_by_row_what_a_run_does(
    studio_home, tmp_path, reader, path, cutoff, supervise, share, rows
):
    if not Path(path).is_file():
        pytest.skip("the public data lies in a folder `shared` beside the checkout, which is not there")
    source = tmp_path / "real.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()[:rows]
    # some that the cutoff leaves nothing of, and one that nobody can read
    lines += [json.dumps(_long(line)) for line in lines[:5]] + ['{"torn']
    source.write_text("\n".join(lines), encoding="utf-8")
    registry.add(source, "real")
    shared = {"template": {"name": "chatml", "supervise": supervise}}
    data = {"datasets": "real", "max_length": cutoff, "validation_share": share, "skip_faulty": True}
    told = prepare(
        specs.parse(TrainSpec, {**shared, "data": data}),
        reader,
        load("chatml"),
        lambda event: None,
        place=tmp_path / "rows",
    )
    wanted = {**shared, "dataset": "real", "model": "tiny", "max_length": cutoff, "validation_share": share}
    report = Report.load(
        audit(
            specs.parse(AuditSpec, {**wanted, "near_duplicates": False, "effective_batch_size": 1}),
            tokenizer=reader,
            report=tmp_path / "report.json",
            findings=tmp_path / "findings",
            emit=lambda event: None,
            stopping=lambda: False,
        )
    )
    assert report.truncated == told.total("truncated") > 0 and report.unsupervised == told.total("skipped")
    assert (report.unwritable, report.faults_total) == (told.total("unwritable"), told.total("faulty"))
    assert report.special_tokens == told.total("escaped")
    assert report.tokens["steps_per_epoch"] == len(told.train)
    sets = [each for each in (told.train, told.held) if each is not None]
    assert report.tokens["kept"] == sum(len(ids) for each in sets for ids in each["input_ids"])
    learned = sum(label != IGNORED for each in sets for labels in each["labels"] for label in labels[1:])
    assert report.tokens["supervised"] == learned
    trained = [
        (len(ids), sum(label != IGNORED for label in labels[1:]))
        for each in sets
        for ids, labels in zip(each["input_ids"], each["labels"], strict=True)
    ]
    audited = _rows(tmp_path / "findings")
    assert audited == trained if share == 0 else sorted(audited) == sorted(trained)


def _long(line):
    values = json.loads(line)
    if "question" in values:
        return {**values, "question": values["question"] * 20}
    first, *others = values["messages"]
    return {**values, "messages": [{**first, "content": first["content"] * 200}, *others]}


def _rows(findings):
    """(tokens that are kept, tokens that are learned) of each row that is trained on or held out, in their order."""
    table = np.load(findings / "lengths.npy", allow_pickle=False)
    return [(kept, learned) for _, _, learned, kept in table.tolist() if learned]

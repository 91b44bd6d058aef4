"""The SMS Spam Collection as the preset sms-spam-lora has it.

The set and a small pretrained model lie in a folder beside the checkout. Not here: all five epochs, which take minutes.
"""

import json

import pytest

from studio import presets, specs
from studio.data import registry
from studio.data.selection import HELD, TESTED, TRAINED, select
from studio.home import CHECKOUT
from studio.specs import TrainSpec, parse
from tests.engine.test_train import Run

SHARED = CHECKOUT.parent / "shared"
SET = SHARED / "data" / "classification" / "sms_spam.tsv"
MINIMIND = SHARED / "models" / "minimind2-small"

pytestmark = [
    pytest.mark.usefixtures("studio_home"),
    pytest.mark.skipif(not SET.is_file(), reason="the published sets are not beside the checkout"),
]


def preset(*changes):
    values = specs.read_yaml(presets.text("sms-spam-lora"))
    return parse(TrainSpec, specs.with_overrides(values, changes))


def test_all_lines_are_read_balanced_and_split_without_a_text_on_two_sides():
    assert registry.add(SET, "sms-spam").rows == 5574
    spec = preset()
    (part,) = select(spec.data, "classify", balance=spec.stage.balance)
    sides = {side: list(part.examples(wanted=(side,))) for side in (TRAINED, HELD, TESTED)}
    assert [len(found) for found in sides.values()] == [1046, 149, 299]
    labels = [example.label for found in sides.values() for _, example in found]
    assert labels.count("ham") == labels.count("spam") == 747
    train, held, test = ({example.text for _, example in found} for found in sides.values())
    assert not train & held and not train & test and not held & test


@pytest.mark.slow
@pytest.mark.skipif(not MINIMIND.is_dir(), reason="the model is not beside the checkout")
def test_after_one_epoch_nine_of_ten_messages_of_the_test_are_told_right(tmp_path):
    registry.add(SET, "sms-spam")
    run = Run(tmp_path / "run")
    run(preset(f"model.name={MINIMIND}", "training.epochs=1"))
    examined = json.loads(run.record.read_text())["examined"]
    assert examined["before"]["test"]["accuracy"] < 0.7 and examined["after"]["test"]["accuracy"] > 0.9

"""Every shipped template writes what its golden file holds, and marks its answers where they are."""

import re

import pytest

from studio import templates
from studio.templates.library import shipped
from studio.templates.rendering import HEADER, parsed_tools, render_marked
from tests.templates import golden
from tests.templates.conversations import BY_NAME, CONVERSATIONS
from tests.templates.families import FAMILIES

NAMES = [each.name for each in shipped()]
OPEN, CLOSE = "\ufdd0", "\ufdd1"
EARLIER_END = {"gpt_oss": "<|end|>"}
"""What ends an answer that is not the last, where the family keeps the token that stops for the last one."""


def test_every_shipped_template_has_a_family_and_a_golden_file_and_none_is_left_over():
    assert sorted(FAMILIES) == NAMES
    assert sorted(path.stem for path in golden.FOLDER.glob("*.json")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_golden_file_says_whom_it_was_compared_with(name):
    kept, family = golden.read(name), FAMILIES[name]
    assert (kept["specials"], kept["reference"]) == (family.specials, family.words)
    assert family.references or family.unverified


@pytest.mark.parametrize("name", NAMES)
def test_a_template_writes_and_refuses_what_its_golden_file_holds(name):
    kept = golden.read(name)
    assert {case["conv"] for case in kept["cases"]} == set(BY_NAME)
    ours = golden.cases(templates.load(name), kept["specials"])
    assert [(case["conv"], case["prompt"]) for case in ours] == [
        (case["conv"], case["prompt"]) for case in kept["cases"]
    ]
    for one, other in zip(ours, kept["cases"], strict=True):
        assert one == other


@pytest.mark.parametrize("name", NAMES)
def test_the_last_answer_begins_where_the_prompt_ends_and_every_answer_ends_with_its_end(name):
    template, specials = templates.load(name), golden.read(name)["specials"]
    ends = tuple(end for end in (specials.get("eos_token"), *template.stop, EARLIER_END.get(name)) if end)
    for each in CONVERSATIONS:
        whole, asked = (golden.written(template, each, specials, prompt=prompt) for prompt in (False, True))
        assert whole.keys() == asked.keys(), f"{each.name} is refused with its last answer or without, but not both"
        if "refused" in whole:
            continue
        marked = render_marked(template, each.messages, specials, marks=(OPEN, CLOSE), tools=parsed_tools(each.tools))
        assert re.sub(f"[{OPEN}{CLOSE}]", "", marked) == whole["text"]
        answers = re.findall(f"{OPEN}([^{OPEN}{CLOSE}]*){CLOSE}", marked)
        assert len(answers) == sum(message.role == "assistant" for message in each.messages), each.name
        before = marked[: marked.rindex(OPEN)]
        assert re.sub(f"[{OPEN}{CLOSE}]", "", before) == asked["text"], each.name
        followers = re.findall(f"{CLOSE}([^{OPEN}{CLOSE}]*)", marked)
        for answer, follower in zip(answers, followers, strict=True):
            # some families have no end token: the model stops at the heading of the turn that follows
            ended = answer.endswith(ends) or follower.lstrip().startswith(ends) or not follower
            assert ended, f"{each.name}: {answer!r} is followed by {follower[:40]!r}"


@pytest.mark.parametrize("name", NAMES)
def test_the_header_tells_the_default_system_text_that_is_written(name):
    template, specials = templates.load(name), golden.read(name)["specials"]
    text = golden.written(template, BY_NAME["one_turn"], specials, prompt=False)["text"]
    assert template.system in text
    assert all([template.title, template.families, template.source])


@pytest.mark.parametrize("name", NAMES)
def test_a_system_text_is_never_dropped(name):
    template, specials = templates.load(name), golden.read(name)["specials"]
    written = golden.written(template, BY_NAME["system"], specials, prompt=False)
    assert "refused" in written or "You are terse." in written["text"]


@pytest.mark.parametrize("name", NAMES)
def test_no_training_text_depends_on_the_day(name):
    assert "strftime_now" not in HEADER.sub("", templates.load(name).text, count=1)


@pytest.mark.parametrize("name", NAMES)
def test_calls_and_results_of_tools_are_both_written_or_the_row_is_refused(name):
    template, specials = templates.load(name), golden.read(name)["specials"]
    written = golden.written(template, BY_NAME["tools"], specials, prompt=False)
    if "refused" in written:
        return
    assert "find_train" in written["text"] and "09:15" in written["text"]

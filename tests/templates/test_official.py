"""Shipped templates against the published ones: text for text, and for the tokenizers at hand token for token."""

import pytest

from studio import templates
from studio.data.example import Example
from studio.templates import TextTokenizer, encode, generation_prompt
from studio.templates.rendering import as_values, parsed_tools
from tests.templates.families import FAMILIES
from tests.templates.golden import differences
from tests.templates.references import REFUSED, SHARED, Own, on_purpose

PAIRS = [
    pytest.param(name, reference, id=f"{name}-{reference.words}")
    for name, family in FAMILIES.items()
    for reference in family.references
]
TOKENIZERS = [
    pytest.param(name, reference, id=reference.file)
    for name, family in FAMILIES.items()
    for reference in family.references
    # the recorded tokenizer.json of InternLM 2 calls the tokens of its turns by other names
    if isinstance(reference, Own) and reference.file != "internlm2"
]


@pytest.mark.parametrize(("name", "reference"), PAIRS)
def test_ours_writes_what_the_published_template_writes(name, reference):
    cases = list(reference.cases(FAMILIES[name].specials))
    if not cases:
        pytest.skip("recorded in a folder `shared` beside the checkout, which is not there")
    found = list(differences(name, FAMILIES[name].specials, reference))
    assert [each.shown for each in found if not each.reason] == []
    reasons = {each.reason for each in found}
    assert set(reference.differs.values()) <= reasons, "a difference is declared that there is not"


@pytest.mark.parametrize("name", FAMILIES)
def test_a_difference_from_the_published_template_is_told_in_the_file_or_concerns_what_is_refused(name):
    template, family = templates.load(name), FAMILIES[name]
    found = [each for reference in family.references for each in differences(name, family.specials, reference)]
    told = bool(template.deviates)
    silent = [each.shown for each in found if each.ours != REFUSED and each.case.text != REFUSED]
    assert told or not silent, "differs, and the header has no `deviates`"


@pytest.mark.parametrize(("name", "reference"), TOKENIZERS)
def test_tokens_are_those_of_transformers_with_the_tokenizers_own_template(name, reference):
    folder = SHARED / "tokenizers" / reference.file
    if not folder.is_dir():
        pytest.skip("the tokenizers lie in a folder `shared` beside the checkout, which is not there")
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(folder)
    ours, template = TextTokenizer.from_folder(folder), templates.load(name)
    compared = 0
    for case in reference.cases(ours.specials):
        if on_purpose(reference, case):
            continue
        ids = theirs.apply_chat_template(
            as_values(case.messages),
            tools=parsed_tools(case.tools),
            add_generation_prompt=case.prompt,
            tokenize=True,
            return_dict=False,
        )
        if case.prompt:
            own = generation_prompt(case.messages, template, ours, tools=case.tools)
        else:
            own = encode(Example(case.messages, tools=case.tools), template, ours).input_ids
        if case.conversation == "spaces":
            # white space before an answer would share a token with the heading, and ours keeps the two apart
            own, ids = ours.decode(own), ours.decode(ids)
        assert own == ids, case.conversation
        compared += 1
    assert compared >= 10

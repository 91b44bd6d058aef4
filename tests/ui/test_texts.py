import string
from types import SimpleNamespace

import pytest

from studio.ui.texts import language, say, t, table


def placeholders(text):
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


def request(query=None, accept=""):
    return SimpleNamespace(query_params=query or {}, headers={"accept-language": accept})


def test_both_languages_say_the_same_things():
    assert set(table("en")) == set(table("zh"))


@pytest.mark.parametrize("key", sorted(table("en")))
def test_both_languages_have_the_same_placeholders(key):
    assert placeholders(table("en")[key]) == placeholders(table("zh").get(key, ""))


def test_no_text_is_empty():
    assert [key for name in ("en", "zh") for key, text in table(name).items() if not text.strip()] == []


def test_a_misspelt_key_is_found_while_the_page_is_built():
    with pytest.raises(KeyError, match=r"train\.start"):
        t("train.strat")


@pytest.mark.parametrize(
    ("query", "accept", "expected"),
    [
        ({}, "zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ({}, "zh-TW", "zh"),
        ({}, "en-US,en;q=0.9,zh;q=0.8", "en"),
        ({}, "fr-FR", "en"),
        ({}, "", "en"),
        ({"lang": "zh"}, "en-US", "zh"),
        ({"lang": "en"}, "zh-CN", "en"),
        ({"lang": "tlh"}, "zh-CN", "zh"),
    ],
)
def test_the_address_decides_the_language_before_the_browser(query, accept, expected):
    assert language(request(query, accept)) == expected


def test_say_fills_in_values():
    assert say("train.skipped_rows", request(accept="zh-CN"), count=3).startswith("有 3 行")

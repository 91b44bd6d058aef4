"""The fast reading of JSON and the strict one agree on every line; what is unfit is a fault with a reason."""

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from studio.data import decoding

TEXTS = st.text(alphabet=st.sampled_from('ab":\\{}[], é你🙂\n\t/u0d8'), max_size=12) | st.text(max_size=6)
NUMBERS = st.integers(-(10**45), 10**45) | st.floats(allow_nan=True)
VALUES = st.recursive(
    TEXTS | NUMBERS | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


def same(one, other):
    return one == other and json.dumps(one) == json.dumps(other)


@settings(max_examples=400)
@given(st.dictionaries(TEXTS, VALUES, max_size=5), st.booleans(), st.sampled_from([None, 1, "\t"]))
def test_what_is_read_quickly_is_what_the_strict_reading_gives(value, ascii_only, indent):
    try:
        line = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    except UnicodeEncodeError:
        return
    quick, strict = decoding.quick(line), decoding.parse(line.decode())
    assert quick is None or (strict.fault is None and same(quick, strict.value))


KEYS = st.sampled_from(['"a"', '"b"', '"a\\""', '"a\\\\"', '"\\u0061"', '":"', '"a" '])
SIMPLE = st.sampled_from(
    ["1", '"x"', '":"', '"\\":"', '"\\\\"', '"a\\":1,\\"a"', "{}", '["a"]', '{"a":1}', '"\\\\\\":"']
)


@settings(max_examples=600)
@given(st.lists(st.tuples(KEYS, SIMPLE), max_size=5), st.sampled_from(["", " "]))
def test_no_key_that_is_there_twice_slips_through(pairs, space):
    line = "{" + ",".join(f"{key}{space}:{space}{value}" for key, value in pairs) + "}"
    quick, strict = decoding.quick(line.encode()), decoding.parse(line)
    if strict.fault:
        assert quick is None
    else:
        assert same(quick, strict.value)


@settings(max_examples=400)
@given(st.text(alphabet=st.sampled_from('{}[]":,\\ 019.eE-+truefalsn"ab\t\rud8'), max_size=30) | st.text(max_size=20))
@example('{"a": 18446744073709551616}')
@example('{"a": 1e400}')
@example('{"a": -0}')
@example('{"a": NaN}')
def test_the_fast_reading_never_takes_what_the_strict_one_refuses(line):
    try:
        quick = decoding.quick(line.encode())
    except UnicodeEncodeError:
        return
    strict = decoding.parse(line.strip(" \t\r\n"))
    assert quick is None or (strict.fault is None and same(quick, strict.value))


@pytest.mark.parametrize("line", [b"\xff", b'{"a": "\xe4"}', b'{"a": "\\ud800"}', b'{"a": "\\u0000"}', b"[1]", b""])
def test_what_is_in_doubt_is_left_to_the_strict_reading(line):
    assert decoding.quick(line) is None


def test_ordinary_lines_are_read_quickly():
    for line in (b'{"a": "b: \\"c\\": d", "e": 1.5}', b'{"a" : "\\\\", "b": [{"c": null}, "x"]}\r', b"{}"):
        assert decoding.quick(line) == json.loads(line)


@pytest.mark.parametrize("depth", [decoding.MAX_DEPTH - 1, decoding.MAX_DEPTH + 1, 990, 3000, 100_000])
def test_f14_the_depth_that_is_too_deep_is_the_same_everywhere(depth):
    line = '{"a": ' + "[" * depth + "]" * depth + "}"
    fault = decoding.TOO_DEEP if depth >= decoding.MAX_DEPTH else None
    assert decoding.parse(line).fault == fault
    assert (decoding.quick(line.encode()) is None) == (fault is not None)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('{"a": 1, "a": 2}', "has the key 'a' twice"),
        ('{"a": {"b": 1, "b": 1}}', "has the key 'b' twice"),
        ('{"a": NaN}', "holds NaN"),
        ('{"a": 1e999}', "which is too large"),
        ('{"a": ' + "9" * 41 + "}", "a whole number of 41 digits"),
        ('{"a": ' + "9" * 5000 + "}", "a whole number of 5000 digits"),
        ('{"a\\u0000": 1}', "holds a NUL character"),
        ('{"a": "\\udc00"}', "half of a surrogate pair"),
        ('{"a": 1} x', "something follows the value at character 9"),
        ("{'a': 1}", "is not valid JSON: Expecting property name"),
    ],
)
def test_what_is_unfit_is_told(text, fault):
    assert fault in decoding.parse(text).fault


def test_whole_numbers_beyond_64_bits_stay_exact():
    assert decoding.parse('{"a": 18446744073709551617}').value == {"a": 18446744073709551617}
    assert decoding.quick(b'{"a": 18446744073709551617}') is None


def test_a_long_value_is_shown_short():
    assert decoding.shown("x" * 100) == '"' + "x" * 56 + "..."
    assert len(decoding.shown({"a": "x" * 9000}, 2000)) == 2000

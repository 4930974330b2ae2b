"""Every JSON value is read as it was written, and any other bytes are refused."""

import contextlib
import gc
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraud_detection.strict_json import NotStrictJson, parse

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(JSON_VALUES)
def test_what_json_can_say_comes_out_as_it_went_in(value: Any) -> None:
    assert parse(json.dumps(value).encode()) == value
    assert parse(json.dumps(value, ensure_ascii=False).encode()) == value


@pytest.mark.parametrize("tail", [b"]", b""])
def test_parsing_starts_no_collection_of_garbage(tail: bytes) -> None:
    collected: list[str] = []

    def note(phase: str, _: object) -> None:
        collected.append(phase)

    gc.callbacks.append(note)
    try:
        with contextlib.suppress(NotStrictJson):
            parse(b"[" + b"[]," * 20_000 + b"[]" + tail)
        during = list(collected)
    finally:
        gc.callbacks.remove(note)

    assert during == []
    assert gc.isenabled()


@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_or_are_refused(body: bytes) -> None:
    try:
        value = parse(body)
    except NotStrictJson:
        return

    assert parse(json.dumps(value).encode()) == value

"""Parses JSON as strictly as RFC 8259 allows: what clients send, and what a model volume holds."""

import gc
import json
from typing import Any, Never


class NotStrictJson(Exception):
    """Bytes that are not exactly one JSON value; the message names the rule and never repeats the bytes."""


def parse(body: bytes) -> Any:
    """Return the one JSON value in `body`: UTF-8, no key twice, no NaN or Infinity, no lone surrogate.

    Numbers are returned as Python reads them: 1e400 is inf, an integer keeps its digits.

    Raises NotStrictJson.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise NotStrictJson(f"byte {error.start}: not UTF-8") from error
    is_collecting = gc.isenabled()
    gc.disable()  # JSON holds no cycles, but each list counts: collections would take twenty times as long as parsing
    try:
        value = _DECODER.decode(text)
        if "\\u" in text:  # only an escape can bring half of a surrogate pair, which neither database nor log can hold
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except json.JSONDecodeError as error:
        raise NotStrictJson(f"character {error.pos}: not JSON ({error.msg})") from error
    except UnicodeEncodeError as error:
        raise NotStrictJson("a string holds half of a surrogate pair") from error
    except RecursionError as error:
        raise NotStrictJson("nested too deeply") from error
    except ValueError as error:  # int() refuses more than 4300 digits, because its time grows quadratically
        raise NotStrictJson("an integer has more than 4300 digits") from error
    finally:
        if is_collecting:
            gc.enable()
    return value


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    parsed = dict(pairs)
    if len(parsed) != len(pairs):
        raise NotStrictJson("an object names a field twice")
    return parsed


def _refuse_constant(_constant: str) -> Never:
    raise NotStrictJson("NaN and Infinity are not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_without_repeats, parse_constant=_refuse_constant)

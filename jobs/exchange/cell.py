"""Reads one cell of any table, so that every command reads it alike: a number, a truth, an id or a text."""

import re

from fraud_detection.contract import TRANSACTION_ID

_EXACT = 2**53  # beyond it a float64 no longer holds every whole number
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_PLAIN_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?", re.ASCII)
_TRUTHS = {"": None, "false": False, "true": True}


def read_number(text: str) -> float:
    """Return the number in a cell, as float() reads it; raises ValueError."""
    return float(text)


def read_truth(text: str) -> bool | None:
    """Return whether a cell says fraud, None if it is empty; raises ValueError.

    >>> read_truth("1"), read_truth("False"), read_truth("0.0"), read_truth("")
    (True, False, False, None)
    """
    word = text.strip().strip("'").lower()  # one mirror of the public set writes '0' in quotes
    if word in _TRUTHS:
        return _TRUTHS[word]
    try:
        number = read_number(word)  # numpy writes 1.000000000000000000e+00
    except ValueError:
        number = -1
    if number not in {0, 1}:
        raise ValueError("expected 0, 1 or nothing")
    return number == 1


def read_id(text: str) -> str | None:
    """Return the transaction id in a cell, without the spaces around it, None if it is empty; raises ValueError."""
    text = text.strip(" ")
    if text and not TRANSACTION_ID.fullmatch(text):
        raise ValueError("no id")
    return text or None


def text_of(value: object) -> str | None:
    """Return the text that pandas writes to a CSV file for a value: empty for None, None if no text is exact.

    An id of 7.0 is therefore 7.0 in every file. SQLite has no truths, only 0 and 1.

    >>> text_of(7.0), text_of(True), text_of(None), text_of(b"7")
    ('7.0', 'True', '', None)
    """
    if value is None:
        return ""
    if isinstance(value, float):
        return repr(value) if abs(value) < _EXACT else None
    if isinstance(value, int):
        return str(value)
    return value if isinstance(value, str) else None


def for_spreadsheet(text: str) -> str:
    """Return a text for a CSV file with an apostrophe before what a spreadsheet would run as a formula.

    Numbers stay as they are.

    >>> for_spreadsheet("=1+1"), for_spreadsheet("-5"), for_spreadsheet("'=1"), for_spreadsheet("a=1")
    ("'=1+1", '-5', "''=1", 'a=1')
    """
    runs = _FORMULA.match(text) and not _PLAIN_NUMBER.fullmatch(text)
    return f"'{text}" if runs else text


def from_spreadsheet(text: str) -> str:
    """Return the text for which `for_spreadsheet` gives this one.

    >>> from_spreadsheet("'=1+1"), from_spreadsheet("'a")
    ('=1+1', "'a")
    """
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text

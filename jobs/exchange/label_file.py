"""Sends the labels of a file to a running API."""

import itertools
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fraud_detection.clock import TIME_FORM, stored_time
from fraud_detection.contract import LABEL_SOURCES, MAX_BODY_BYTES, MAX_LABELS, TOO_MANY_ROWS
from jobs.exchange.api_client import ApiClient, ApiRefused
from jobs.exchange.cell import read_number, read_truth
from jobs.exchange.read_table import open_table
from jobs.exchange.table import BadTransactionFile, instead_of_names
from jobs.progress import bar

_MIDNIGHT = "00:00:00.000000"
_MAX_LABELS_OF_A_FILE = 400_000  # about 400 MB, because contradictions are looked for before the first one is sent
_MAX_ROWS = 2**31  # of a request; the database counts them in 32 bits
_COLUMNS = frozenset({"transaction_id", "request_id", "row", "is_fraud", "Class", "source", "reported_at", "reporter"})


@dataclass(frozen=True)
class LabelledFile:
    """Counts of the labels of a file."""

    labels: int
    new: int
    empty: int
    """Lines without a label."""
    overruled: int
    """Lines that are not sent, because another line of the file counts."""


_Placed = tuple[str, dict[str, object]]
"""A label and its place in the file, such as "line 2"."""


@dataclass
class _Batch:
    places: list[str]
    labels: list[dict[str, object]]
    room: int = MAX_BODY_BYTES - len('{"labels": []}')
    """Bytes that still fit into the body of the request."""

    def has_room(self, labels: list[_Placed]) -> bool:
        return len(self.labels) + len(labels) <= MAX_LABELS and sum(_size(label) for _, label in labels) <= self.room

    def add(self, placed: _Placed) -> None:
        place, label = placed
        self.places.append(place)
        self.labels.append(label)
        self.room -= _size(label)


def _size(label: dict[str, object]) -> int:
    return len(json.dumps(label)) + len(", ")


def label_file(path: Path, client: ApiClient, *, source: str) -> LabelledFile:
    """Send every label of a table; lines without a source get `source`. Sending a file again changes nothing.

    Its columns: `transaction_id`, or `request_id` and `row`; `is_fraud` (or `Class`): 1, 0, or empty if not known
    yet; optional `source`, `reported_at`, `reporter`. Other columns are ignored.

    Raises BadTransactionFile (nothing was sent), ApiRefused (the message names the line; earlier requests are
    stored), ApiAway.
    """
    read, empty = _read(path, source)
    batches = _batches(_counting(read))
    sent = sum(len(batch.labels) for batch in batches)
    progress = bar(batches, desc=path.name, unit=" requests")
    new = sum(_send(path, client, batch.places, batch.labels) for batch in progress)
    return LabelledFile(sent, new, empty, len(read) - sent)


def _send(path: Path, client: ApiClient, places: list[str], labels: list[dict[str, object]]) -> int:
    """Send labels and return how many are new; halve them if they name too many rows, which only the API can count."""
    try:
        return client.label(labels)
    except ApiRefused as error:
        named = re.search(r"\blabel (\d+)\b", str(error))
        if named is not None or len(labels) == 1:
            place = places[int(named[1]) if named else 0]
            raise ApiRefused(error.status, f"{path}, {place}: {error}", error.code) from error
        if error.code != TOO_MANY_ROWS:
            raise
    half = len(labels) // 2
    return _send(path, client, places[:half], labels[:half]) + _send(path, client, places[half:], labels[half:])


def _read(path: Path, source: str) -> tuple[list[_Placed], int]:
    """Return the labels of a file, and how many rows have none."""
    labels: list[_Placed] = []
    empty = 0
    for place, fields in _named_fields(path):
        try:
            label = _label(fields, source)
        except ValueError as error:
            raise BadTransactionFile(f"{path}, {place}: {error}") from None
        if label is None:
            empty += 1
            continue
        if len(labels) == _MAX_LABELS_OF_A_FILE:
            raise BadTransactionFile(
                f"{path}, {place}: expected at most {_MAX_LABELS_OF_A_FILE:,} labels in a file; split it, and send the "
                "parts in the order in which they were reported"
            )
        labels.append((place, label))
    return labels, empty


def _counting(labels: list[_Placed]) -> list[_Placed]:
    """Return the labels that count among those of one source, reporter and time; those of a transaction come together.

    If such labels contradict each other, fraud counts, as `label_that_counts` decides. In two requests the later one
    would count, so that the order and the length of the file would matter. A file that names transactions in both ways
    may name one of them twice. Therefore its strongest labels come last.
    """
    frauds = {_said_by(label) for _, label in labels if label["is_fraud"]}
    by_transaction: dict[object, list[_Placed]] = defaultdict(list)
    for place, label in labels:
        if label["is_fraud"] or _said_by(label) not in frauds:
            by_transaction[_named(label)].append((place, label))
    groups = list(by_transaction.values())
    if len({"transaction_id" in label for _, label in labels}) == 2:
        for together in groups:
            together.sort(key=_strength)
        groups.sort(key=lambda together: _strength(together[-1]))
    return [placed for together in groups for placed in together]


def _strength(placed: _Placed) -> tuple[int, bool]:
    """Return what decides between labels of one time, in ascending order, as in `label_that_counts`."""
    source = str(placed[1]["source"])
    return -[*LABEL_SOURCES, source].index(source), bool(placed[1]["is_fraud"])  # the API rejects another source


def _named(label: dict[str, object]) -> tuple[object, ...]:
    return tuple(label.get(name) for name in ("request_id", "row", "transaction_id"))


def _said_by(label: dict[str, object]) -> tuple[object, ...]:
    return (*_named(label), *(label.get(name) for name in ("source", "reporter", "reported_at")))


def _batches(labels: list[_Placed]) -> list[_Batch]:
    """Divide labels into requests; those of one transaction stay together if one request can hold them."""
    batches = [_Batch([], [])]
    for _, group in itertools.groupby(labels, key=lambda placed: _named(placed[1])):
        together = list(group)
        if not batches[-1].has_room(together):
            batches.append(_Batch([], []))
        for placed in together:
            if not batches[-1].has_room([placed]):
                batches.append(_Batch([], []))
            batches[-1].add(placed)
    return [batch for batch in batches if batch.labels]


def _named_fields(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Give the place of each row, such as "line 2", and its fields."""
    with open_table(path) as table:
        if not {"is_fraud", "Class"} & set(table.header) or not (
            "transaction_id" in table.header or {"request_id", "row"} <= set(table.header)
        ):
            raise BadTransactionFile(
                f"{table.header_place}: expected the columns transaction_id (or request_id and row) and is_fraud"
                f"{instead_of_names(table)}"
            )
        names = [name for name in table.header if name in _COLUMNS]
        repeated = next((name for name in names if names.count(name) > 1), None)
        if repeated is not None:
            raise BadTransactionFile(f"{table.header_place}: column {repeated} appears twice")
        for chunk in table.chunks([], [table.header.index(name) for name in names]):
            for line, *fields in zip(chunk.lines, *chunk.texts, strict=True):
                yield f"{table.unit} {line}", dict(zip(names, map(str.strip, fields), strict=True))


def _label(fields: dict[str, str], source: str) -> dict[str, object] | None:
    is_fraud = _is_fraud(fields)
    if is_fraud is None:
        return None
    label: dict[str, object] = {"is_fraud": is_fraud, "source": fields.get("source") or source}
    if fields.get("request_id"):
        label |= {"request_id": fields["request_id"], "row": _row(fields.get("row", ""))}
    elif fields.get("transaction_id"):
        label["transaction_id"] = fields["transaction_id"]
    else:
        raise ValueError("expected a transaction_id, or request_id and row")
    if fields.get("reported_at"):
        label["reported_at"] = _reported_at(fields["reported_at"])
    if fields.get("reporter"):
        label["reporter"] = fields["reporter"]
    return label


def _is_fraud(fields: dict[str, str]) -> bool | None:
    said: set[bool] = set()
    for column in ("is_fraud", "Class"):
        try:
            truth = read_truth(fields.get(column, ""))
        except ValueError as error:
            raise ValueError(f"column {column}: {error}") from None
        said |= set() if truth is None else {truth}
    if len(said) == 2:
        raise ValueError("the columns is_fraud and Class contradict each other; remove one of them")
    return said.pop() if said else None


def _row(text: str) -> int:
    try:
        number = read_number(text)  # pandas writes 0.0 if another row has none
    except ValueError:
        number = -1.0
    if not number.is_integer() or not 0 <= number < _MAX_ROWS:
        raise ValueError("column row: expected the position of the transaction in its request, from 0")
    return int(number)


def _reported_at(text: str) -> str:
    """Return a time with its zone, as the API takes it, and midnight as its date, which the API compares by date.

    Tables of dates come either way: pandas writes a column of midnights to CSV as dates, and to Parquet as times.
    """
    try:
        stored = stored_time(text)
    except ValueError:
        raise ValueError(f"column reported_at: expected {TIME_FORM}") from None
    day, time = stored.split(" ")
    return day if time == _MIDNIGHT else f"{day}T{time}Z"

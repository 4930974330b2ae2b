"""Compares the rows of an import with those that are stored, so that only new ones and new labels come in."""

import hashlib
import itertools
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import fields, replace
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa

from fraud_detection.schema import Role, names_of
from fraud_detection.store import PAGE_ROWS, Store
from fraud_detection.store.labels import Label, insert, label_that_counts
from fraud_detection.store.transfer import ImportedRows

_IMPORT = "import"
_ANY_TIME = ""  # in the key of a row whose time was made up


class KnownRows:
    """The rows that were stored before an import began; each of them makes one row of the import known.

    A row with a transaction id is known by its id and time, a row without one by its time and features. A file that
    holds a payment twice therefore keeps both, and importing it again adds neither. With `again` no row is known.

    If the import made up the times (`has_times` is false), a row is known whatever the time. Rows of equal features
    are then different payments, which may have different labels.
    """

    def __init__(
        self,
        store: Store,
        connection: sa.Connection,
        *,
        reporter: str,
        received_at: str,
        again: bool = False,
        has_times: bool = True,
    ) -> None:
        self._store, self._connection = store, connection
        self._reporter, self._received_at, self._again, self._has_times = reporter, received_at, again, has_times
        requests = store.tables.requests
        self._features = [requests.c[name] for name in names_of(requests, Role.FEATURE)]
        self._last_id = int(connection.scalar(sa.select(sa.func.max(requests.c.id))) or 0)
        self._times: set[str] = set()
        # The stored rows by key, as numbers: a file may have a single time for all its rows, so all may be here.
        self._waiting: dict[int, list[_Stored]] = defaultdict(list)
        self._taken: set[int] = set()
        self._frauds: dict[str, set[int]] = defaultdict(set)  # keys of the rows that the import calls fraud, by time
        self._contradicted: dict[str, dict[int, _Contradiction]] = defaultdict(dict)  # by time and stored row
        self._relabelled: set[int] = set()
        self.known = 0
        """Rows of the import that were stored before."""
        self.labels_added = 0
        """Labels that the import gave to rows that were stored before, or that other rows of it contradict."""

    def take_out(self, page: ImportedRows) -> ImportedRows:
        """Return the rows of a page that are new; a known one gives its label to the stored row if that is new."""
        contents = page.matrix + 0.0  # SQLite stores no negative zero
        known_times = page.ts if self._has_times else [_ANY_TIME] * len(page.ts)
        for place, (ts, transaction_id, is_fraud) in enumerate(
            zip(known_times, page.transaction_ids, page.is_fraud, strict=True)
        ):
            if is_fraud and (self._has_times or transaction_id is not None):
                self._frauds[ts].add(_key(ts, transaction_id, contents[place]))
        times = set(known_times)
        self._look_up(times - self._times)
        if self._times.isdisjoint(times):
            return page
        new: list[int] = []
        first_labels: dict[int, bool] = {}
        for place, (ts, transaction_id, is_fraud) in enumerate(
            zip(known_times, page.transaction_ids, page.is_fraud, strict=True)
        ):
            key = _key(ts, transaction_id, contents[place])
            stored = self._take(key)
            if stored is None:
                new.append(place)
            elif is_fraud is not None and stored.is_fraud is None:
                first_labels[stored.id] = is_fraud
            elif is_fraud is not None and stored.is_fraud != is_fraud:
                self._contradicted[ts][stored.id] = _Contradiction(key, is_fraud)
        self.known += len(page.ts) - len(new)
        self._label(first_labels)
        return ImportedRows(
            page.request_id,
            [page.ts[place] for place in new],
            page.matrix[new],
            [page.is_fraud[place] for place in new],
            [page.transaction_ids[place] for place in new],
        )

    def settle(self) -> None:
        """After the last page, set what counts where the import contradicts the store or itself."""
        self._label_anew()
        self._label_alike()

    def _label_anew(self) -> None:
        """Label the rows that the import contradicts, unless an import said the same of equal rows before."""
        is_older = self._store.tables.requests.c.id <= self._last_id
        for times in _parts(sorted(self._contradicted)):
            said = {row: each for ts in times for row, each in self._contradicted[ts].items()}
            equal = self._equal(times, {each.key for each in said.values()}, is_older)
            labels = {
                row.id: known
                for rows in _parts([*itertools.chain(*equal.values())])
                for row, known in self._labels_of(rows)
            }
            said_before = {
                (key, label.is_fraud)
                for key, rows in equal.items()
                for row in rows
                for label in labels[row]
                if label.source == _IMPORT
            }
            called_fraud = {key for ts in times for key in self._frauds.get(ts, ())}
            self._label(
                {
                    row: each.is_fraud
                    for row, each in said.items()
                    if (each.key, each.is_fraud) not in said_before and (each.is_fraud or each.key not in called_fraud)
                }
            )

    def _label_alike(self) -> None:
        """Label equal rows as fraud if the import contradicts itself about them."""
        is_fraud = self._store.tables.requests.c["Class"]
        for times in _parts(sorted(self._frauds)):
            keys = {key for ts in times for key in self._frauds[ts]}
            genuine = self._equal(times, keys, is_fraud == 0)
            fraudulent = self._equal(times, set(genuine), is_fraud == 1)
            alike = {row for key, rows in genuine.items() if self._touches(rows + fraudulent[key]) for row in rows}
            self._label(dict.fromkeys(alike, True))

    def _equal(
        self, times: Sequence[str], keys: Collection[int], condition: sa.ColumnElement[bool]
    ) -> dict[int, list[int]]:
        """Return the rows of each key."""
        equal: dict[int, list[int]] = defaultdict(list)
        for row, content in self._stored_at(times, condition) if keys else ():
            for transaction_id in {None, row.transaction_id}:
                key = _key(row.ts, transaction_id, content)
                if key in keys:
                    equal[key].append(row.id)
        return equal

    def _touches(self, rows: list[int]) -> bool:
        """Return whether the import inserted or labelled one of these rows."""
        return any(row > self._last_id or row in self._relabelled for row in rows)

    def _look_up(self, times: set[str]) -> None:
        if self._again or not self._last_id:
            return
        for row, content in self._stored_at(list(times), self._store.tables.requests.c.id <= self._last_id):
            self._times.add(row.ts)
            stored = _Stored(row.id, row.Class, row.transaction_id is not None)
            for transaction_id in {None, row.transaction_id}:
                self._waiting[_key(row.ts, transaction_id, content)].append(stored)

    def _take(self, key: int) -> "_Stored | None":
        """Return a stored row of this key that no other row of the import has taken."""
        while waiting := self._waiting.get(key):
            stored = waiting.pop()
            if not waiting:
                del self._waiting[key]
            if stored.id not in self._taken:
                if stored.has_id:
                    self._taken.add(stored.id)
                return stored
        return None

    def _stored_at(self, times: Sequence[str], condition: sa.ColumnElement[bool]) -> Iterator[tuple[Any, Any]]:
        """Give the rows of these times that meet a condition, each with its features."""
        requests = self._store.tables.requests
        ts = requests.c.ts if self._has_times else sa.literal(_ANY_TIME).label("ts")
        query = sa.select(requests.c.id, ts, requests.c.transaction_id, requests.c["Class"], *self._features)
        for some in _parts(times):
            chosen = query.where(condition, requests.c.ts.in_(some) if self._has_times else sa.true())
            # An option of the query: one of the connection would last, and psycopg's streaming cursors insert nothing.
            found = self._connection.execute(chosen.execution_options(stream_results=True))
            for rows in found.partitions(PAGE_ROWS):
                contents = np.array([row[4:] for row in rows], dtype=np.float64) + 0.0
                yield from zip(rows, contents, strict=True)

    def _label(self, said: dict[int, bool]) -> None:
        """Add what the import says of stored rows, unless an import said it before, and set the Class that counts."""
        requests = self._store.tables.requests
        self._relabelled |= said.keys()
        for some in _parts(list(said)):
            new: list[Label] = []
            classes: dict[bool, list[int]] = {True: [], False: []}
            for row, known in self._labels_of(some):
                if (_IMPORT, said[row.id]) in {(label.source, label.is_fraud) for label in known}:
                    continue
                label = Label(
                    row.request_id,
                    row.row_index,
                    said[row.id],
                    _IMPORT,
                    self._reporter,
                    self._received_at,
                    self._received_at,
                )
                new.append(label)
                classes[label_that_counts([*known, label]).is_fraud].append(row.id)
            if new:
                insert(self._store, self._connection, new)
            for is_fraud, rows in classes.items():
                changed = sa.update(requests).where(requests.c.id.in_(rows)).values({"Class": int(is_fraud)})
                self._connection.execute(changed)
            self.labels_added += len(new)

    def _labels_of(self, ids: Sequence[int]) -> Iterator[tuple[Any, list[Label]]]:
        """Give stored rows, each with the newest label of every verdict of every source: those that can count."""
        requests, labels = self._store.tables.requests, self._store.tables.labels
        names = [field.name for field in fields(Label) if field.name in labels.c]  # an older store has fewer
        of_row = sa.and_(labels.c.request_id == requests.c.request_id, labels.c.row_index == requests.c.row_index)
        place = sa.func.row_number().over(
            partition_by=(requests.c.id, labels.c.source, labels.c.is_fraud),
            order_by=(labels.c.reported_at.desc(), labels.c.received_at.desc(), labels.c.reporter.desc()),
        )
        every = (
            sa.select(requests.c.id, *(labels.c[name] for name in names), place.label("place"))
            .join_from(requests, labels, of_row)
            .where(requests.c.id.in_(ids))
            .subquery()
        )
        said: dict[int, list[Label]] = defaultdict(list)
        for stored in self._connection.execute(sa.select(every).where(every.c.place == 1)).mappings():
            known = Label(**{name: stored[name] for name in names})
            said[stored["id"]].append(replace(known, is_fraud=bool(known.is_fraud)))
        rows = sa.select(requests.c.id, requests.c.request_id, requests.c.row_index).where(requests.c.id.in_(ids))
        for row in self._connection.execute(rows).all():
            yield row, said[row.id]


class _Contradiction(NamedTuple):
    key: int
    is_fraud: bool
    """What the import says."""


class _Stored(NamedTuple):
    id: int
    is_fraud: int | None
    has_id: bool
    """It waits under two keys."""


def _parts(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(values), 1000):  # each is bound to the query
        yield values[start : start + 1000]


def _key(ts: str, transaction_id: str | None, content: Any) -> int:
    """Return 64 bits of a digest, because a bytes object for each stored row takes more memory."""
    said = f"id {ts} {transaction_id}".encode() if transaction_id else ts.encode() + content.tobytes()
    return int.from_bytes(hashlib.blake2b(said, digest_size=8).digest())

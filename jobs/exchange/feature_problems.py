"""Says of each column of a table why a feature list or an import cannot use it, and what to do about it."""

import math
import re
import reprlib
import shlex
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fraud_detection.clock import TIME_FORM, read_time, stored_time
from fraud_detection.contract import TRANSACTION_ID_FORM
from fraud_detection.counted import counted
from fraud_detection.features import LIMIT, MAX_FEATURES, name_problem
from jobs.exchange.cell import read_id, read_number, read_truth
from jobs.exchange.read_table import open_table
from jobs.exchange.table import BadTransactionFile, WrongColumnType

_MOST_CATEGORIES = 20  # of more, columns of 0 and 1 would be many and mostly 0
_COMMA_IN_NUMBER = re.compile(r"[+-]?\d[\d.]*,[\d.,]*\d", re.ASCII)


@dataclass(frozen=True)
class Companion:
    """A column that an import reads and that is no feature."""

    meaning: str
    expected: str
    read: Callable[[str], object]
    """Raises ValueError for a cell that is not as expected."""
    advice: str


def _seconds(text: str) -> float:
    seconds = read_number(text)
    if not math.isfinite(seconds):
        raise ValueError("expected a finite number")
    return seconds


COMPANIONS = {
    "Class": Companion(
        "says which transactions were fraud",
        "0, 1 or nothing",
        read_truth,
        "write 1 for fraud, 0 for genuine, and nothing if it is not known",
    ),
    "Time": Companion(
        "counts seconds", "a number of seconds", _seconds, "correct it, or name the column ts if it holds times"
    ),
    "ts": Companion("says when a transaction took place", TIME_FORM, stored_time, "correct it, or rename the column"),
    "transaction_id": Companion(
        "holds your ids", TRANSACTION_ID_FORM, read_id, "correct it, or rename the column and leave it out"
    ),
}
"""Companions by name."""


def name_problems(header: Sequence[str], places: Collection[int], left_out: Collection[str], where: str) -> list[str]:
    """Return a sentence for each fault of the header; `places` are the columns that are not left out."""
    repeated = Counter(header[place].lower() for place in places if header[place])
    problems = [
        f"{where}expected a column {name!r} to leave out, got none of this name; correct --leave-out"
        for name in left_out
        if name not in header
    ]
    features = [place for place in places if header[place] not in COMPANIONS]
    if not features:
        got = ", ".join(name or "a column without a name" for name in header)
        problems.append(
            f"{where}expected a column that can be a feature, got only {got}; add columns of numbers that describe a "
            "transaction"
        )
    if len(features) > MAX_FEATURES:
        problems.append(
            f"{where}expected at most {MAX_FEATURES} features, got {len(features)}; leave columns out with --leave-out"
        )
    for place in places:
        name = header[place]
        if not name:
            problems.append(
                f"{where}column {place + 1} has no name (an index that pandas wrote?); leave it out with "
                "`--leave-out ''`"
            )
            continue
        wrong = name_problem(name)
        if wrong is not None and name not in COMPANIONS:
            problems.append(f"{where}column {name}: {wrong}; {_or_leave_out(_renamed(name, header), name)}")
        if repeated.pop(name.lower(), 1) > 1:
            problems.append(f"{where}a column name appears twice (case does not count): {name!r}; rename one")
    return problems


def _renamed(name: str, header: Collection[str]) -> str:
    meant = meant_companion(name)
    if meant is None or meant in header:
        return "rename it"
    return f"rename it {meant} if it {COMPANIONS[meant].meaning}"


def meant_companion(name: str) -> str | None:
    """Return the companion whose name differs only by its case, None if there is none.

    >>> meant_companion("class"), meant_companion("Class"), meant_companion("shop")
    ('Class', None, None)
    """
    return next((meant for meant in COMPANIONS if meant != name and meant.lower() == name.lower()), None)


def cell_problems(path: Path, places: Sequence[int]) -> list[str]:
    """Read columns once more and return a sentence for each that says what is there instead of what was expected.

    Reading ends at a row that has more or fewer columns than the header.

    Raises BadTransactionFile.
    """
    problems: list[str] = []
    with open_table(path) as table:
        numbers = [place for place in places if table.holds_numbers(place)]
        texts = [place for place in places if place not in numbers]
        while True:
            columns = [_Column(table.header[place]) for place in (*numbers, *texts)]
            try:
                for chunk in table.chunks(numbers, texts):
                    found = zip(chunk.numbers.T.tolist(), chunk.unreadable.T.tolist(), strict=True)
                    cells = [_as_texts(values, unreadable) for values, unreadable in found]
                    for column, column_cells in zip(columns, cells + chunk.texts, strict=True):
                        column.read(chunk.lines, column_cells)
            except WrongColumnType as error:
                name = error.column
                problems.append(f"column {name}: expected numbers, got lists or the like; leave it out{_option(name)}")
                texts.remove(table.header.index(name))
                continue
            except BadTransactionFile:  # the caller has named this row
                pass
            return [*problems, *(column.problem(table.unit) for column in columns if column.line)]


def _as_texts(values: Sequence[float], unreadable: Sequence[bool]) -> list[str]:
    return ["" if is_empty else repr(value) for value, is_empty in zip(values, unreadable, strict=True)]


@dataclass
class _Column:
    """What the cells of one column hold."""

    name: str
    rows: int = 0
    empty: int = 0
    """Cells without a value that need one."""
    others: int = 0
    """Cells that hold something else than expected."""
    line: int = 0
    """Of the first of the others or, without any, of the first empty cell; 0 if every cell is as expected."""
    first: str = ""
    """The first of the others."""
    values: set[str] = field(default_factory=set)
    """Different texts of the others, one more than the most categories at most."""

    def read(self, lines: Sequence[int], cells: Sequence[str]) -> None:
        read = COMPANIONS[self.name].read if self.name in COMPANIONS else _feature_value
        for line, cell in zip(lines, cells, strict=True):
            self.rows += 1
            text = cell.strip()
            try:
                read(text)
            except ValueError:
                self._count(line, text)

    def _count(self, line: int, text: str) -> None:
        if not text:
            self.empty += 1
            self.line = self.line or line
            return
        if not self.others:
            self.line, self.first = line, text
        self.others += 1
        if len(self.values) <= _MOST_CATEGORIES:
            self.values.add(text)

    def problem(self, unit: str) -> str:
        companion = COMPANIONS.get(self.name)
        expected = f"a number from {-LIMIT:g} to {LIMIT:g}" if companion is None else companion.expected
        if not self.others:
            got = f"an empty cell in {self._rows(self.empty)}"
            advice = _or_leave_out("fill in a number, such as the median", self.name)
            if self.empty == self.rows:
                got, advice = "an empty cell in every row", f"leave it out{_option(self.name)}"
        elif companion is None:
            got, advice = self._finding()
        else:
            got = self._first_of_them()
        if self.others and self.empty:
            got += f", and an empty cell in {self._rows(self.empty)}"
        advice = advice if companion is None else companion.advice
        return f"{unit} {self.line}: column {self.name}: expected {expected}, got {got}; {advice}"

    def _first_of_them(self) -> str:
        return f"{reprlib.repr(self.first)} (wrong in {self._rows(self.others)})"

    def _rows(self, number: int) -> str:
        return f"{number:,} of {counted(self.rows, 'row')}"

    def _finding(self) -> tuple[str, str]:
        """Return what a feature's cells hold instead of numbers, and what to do."""
        if all(map(_COMMA_IN_NUMBER.fullmatch, self.values)):
            got = f"{reprlib.repr(self.first)}, a comma in a number, in {self._rows(self.others)}"
            return got, "write points, and nothing between thousands (pandas: `pandas.read_csv(…, decimal=',')`)"
        numbers = [number for number in map(_number, self.values) if number is not None]
        if len(numbers) == len(self.values) and all(map(math.isfinite, numbers)):
            return self._first_of_them(), _or_leave_out("divide it, or take its logarithm", self.name)
        if numbers or self.others + self.empty < self.rows:
            return self._first_of_them(), _or_leave_out("correct it", self.name)
        return self._texts()

    def _texts(self) -> tuple[str, str]:
        if {value.lower() for value in self.values} <= {"true", "false"}:
            return "true or false", _or_leave_out(
                f"write 1 and 0 (pandas: `table[{self.name!r}].astype(int)`)", self.name
            )
        if all(map(_is_time, self.values)):
            advice = (
                "name the column ts if it is the time of the transaction, compute a number such as the hour from it"
            )
            return "times", _or_leave_out(advice, self.name)
        if len(self.values) <= _MOST_CATEGORIES:
            recipe = f"pandas: `pandas.get_dummies(table, columns=[{self.name!r}], dtype=int)`"
            return (
                f"texts with {counted(len(self.values), 'different value')}",
                _or_leave_out(f"write a column of 0 and 1 for each value ({recipe})", self.name),
            )
        return (
            f"texts with more than {_MOST_CATEGORIES} different values",
            _or_leave_out("replace each value by a number, such as how often it occurred before", self.name),
        )


def _feature_value(text: str) -> float:
    value = read_number(text)
    if not abs(value) <= LIMIT:
        raise ValueError("expected a finite number that a feature may have")
    return value


def _number(text: str) -> float | None:
    try:
        return read_number(text)
    except ValueError:
        return None


def _is_time(text: str) -> bool:
    try:
        read_time(text)
    except ValueError:
        return False
    return True


def _or_leave_out(advice: str, name: str) -> str:
    return f"{advice}, or leave it out{_option(name)}"


def _option(name: str) -> str:
    return f" (`--leave-out {shlex.quote(name)}`)"

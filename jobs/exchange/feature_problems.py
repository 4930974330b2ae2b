"""Says of each column of a table why it cannot be a feature, and what to do about it."""

import math
import shlex
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fraud_detection.clock import read_time
from fraud_detection.features import name_problem
from jobs.exchange.cell import read_number
from jobs.exchange.read_table import open_table
from jobs.exchange.table import BadTransactionFile, WrongColumnType

_MOST_CATEGORIES = 20  # of more, columns of 0 and 1 would be many and mostly 0


def name_problems(header: Sequence[str], places: Collection[int], left_out: Collection[str], where: str) -> list[str]:
    """Return a sentence for each name that no feature may have, and for each column to leave out that is not there."""
    repeated = Counter(header[place].lower() for place in places if header[place])
    problems = [f"{where}there is no column {name!r} to leave out" for name in left_out if name not in header]
    for place in places:
        name = header[place]
        if not name:
            problems.append(
                f"{where}column {place + 1} has no name (an index that pandas wrote?); leave it out with "
                "`--leave-out ''`"
            )
            continue
        wrong = name_problem(name)
        if wrong is not None:
            problems.append(f"{where}column {name}: {wrong}; {_or_leave_out('rename it', name)}")
        if repeated.pop(name.lower(), 1) > 1:
            problems.append(f"{where}a column name appears twice (case does not count): {name!r}; rename one")
    return problems


def cell_problems(path: Path, places: Sequence[int]) -> list[str]:
    """Read columns once more, as text, and return a sentence for each that says what is there instead of numbers.

    Reading ends at a row that has more or fewer columns than the header.

    Raises BadTransactionFile.
    """
    problems: list[str] = []
    with open_table(path) as table:
        readable = list(places)
        while True:
            columns = [_Column(table.header[place]) for place in readable]
            try:
                for chunk in table.chunks([], readable):
                    for column, cells in zip(columns, chunk.texts, strict=True):
                        column.read(chunk.lines, cells)
            except WrongColumnType as error:
                name = error.column
                problems.append(f"column {name}: expected numbers, got lists or the like; leave it out{_option(name)}")
                readable.remove(table.header.index(name))
                continue
            except BadTransactionFile:  # the caller has named this row
                pass
            return [*problems, *(column.problem(table.unit) for column in columns if column.first_line)]


@dataclass
class _Column:
    """What the cells of one column hold."""

    name: str
    rows: int = 0
    empty: int = 0
    others: int = 0
    """Cells that hold neither nothing nor a finite number."""
    first_line: int = 0
    """Where the first cell without a finite number is; 0 if there is none."""
    values: set[str] = field(default_factory=set)
    """Different texts of the others, one more than the most categories at most."""

    def read(self, lines: Sequence[int], cells: Sequence[str]) -> None:
        for line, cell in zip(lines, cells, strict=True):
            self.rows += 1
            text = cell.strip()
            if _is_finite(text):
                continue
            self.first_line = self.first_line or line
            if not text:
                self.empty += 1
                continue
            self.others += 1
            if len(self.values) <= _MOST_CATEGORIES:
                self.values.add(text)

    def problem(self, unit: str) -> str:
        got, advice = self._finding()
        if self.others and self.empty:
            got += f", and {self.empty:,} of {self.rows:,} cells are empty"
        place = f"{unit} {self.first_line}: column {self.name}"
        return f"{place}: expected a number, because a feature is one number, got {got}; {advice}"

    def _finding(self) -> tuple[str, str]:
        """Return what the cells hold, and what to do."""
        if not self.others:
            got = f"an empty cell ({self.empty:,} of {self.rows:,} are empty)"
            return got, _or_leave_out("fill in a number, such as the median", self.name)
        if self.others + self.empty < self.rows:
            return f"something else in {self.others:,} of {self.rows:,} cells", _or_leave_out("correct them", self.name)
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
                f"texts with {len(self.values)} different values",
                _or_leave_out(f"write a column of 0 and 1 for each value ({recipe})", self.name),
            )
        return (
            f"texts with more than {_MOST_CATEGORIES} different values",
            _or_leave_out("replace each value by a number, such as how often it occurred before", self.name),
        )


def _is_finite(text: str) -> bool:
    try:
        return math.isfinite(read_number(text))
    except ValueError:
        return False


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

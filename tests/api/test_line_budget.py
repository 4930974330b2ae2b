"""A flood of lines about one name leaves a few lines and a number, and hides no other name."""

import pytest

from api.line_budget import LINES_PER_SECOND, LineBudget


def test_each_name_has_its_lines_in_each_second_and_the_others_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, int]] = []
    lines = LineBudget(lambda name, count: told.append((name, count)))

    def at(second: float, name: str, times: int) -> int:
        monkeypatch.setattr("api.line_budget.time.monotonic", lambda: second)
        return sum(lines.take(name) for _ in range(times))

    assert at(1000.1, "none", 1000) == LINES_PER_SECOND
    assert at(1000.5, "shop", 3) == 3
    assert at(1000.9, "desk", LINES_PER_SECOND + 1) == LINES_PER_SECOND
    assert told == []
    assert at(1001.0, "shop", 1) == 1
    assert told == [("none", 1000 - LINES_PER_SECOND), ("desk", 1)]
    assert at(1005.0, "none", 1) == 1
    assert len(told) == 2

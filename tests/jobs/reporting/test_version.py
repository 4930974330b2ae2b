"""A version is told on one screen, whatever has happened to it."""

from collections.abc import Callable
from pathlib import Path

from fraud_detection.model.read import read_manifest
from jobs.reporting.version import LINES, tell


def test_a_long_history_leaves_its_newest_entries_on_the_screen(
    tmp_path: Path, make_version: Callable[..., str]
) -> None:
    checks = [{"passed": True, "sentence": "word " * 40} for _ in range(9)]
    version = make_version(
        tmp_path,
        parent="20260101T000000Z-0123456789ab",
        verdict={"decision": "promote", "checks": checks, "measured": {"average_precision": 0.9}},
        libraries={f"library{number}": "1.2.3" for number in range(10)},
    )
    journal = [
        {"at": f"2026-01-{day:02d}", "event": "promoted", "actor": "ada", "reason": "\x1b[31mred"}
        for day in range(1, 29)
    ]

    told = tell(version, read_manifest(tmp_path / version), journal, is_current=False).splitlines()

    assert len(told) <= LINES
    assert told[0] == f"Version {version}"
    assert told[-1] == r"  journal   2026-01-28 promoted by ada: \x1b[31mred"
    assert any(line.startswith("  amounts   (amount - 88.35) / 250.12 is") for line in told)
    assert any("29, from V1 to Amount_scaled" in line for line in told)


def test_without_a_judgement_nothing_was_measured(tmp_path: Path, make_version: Callable[..., str]) -> None:
    version = make_version(tmp_path, trained_on="synthetic", holdout=None, amount_scaling=None)

    told = tell(version, read_manifest(tmp_path / version), [], is_current=True)

    assert "  measured  never, on labelled transactions\n" in told
    assert "hold-out" not in told
    assert "amounts" not in told

"""A model is tried in a process that has little, knows nothing, and ends with its parent."""

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from fraud_detection.child import NoAnswer
from fraud_detection.model.files import CURRENT, ONNX
from fraud_detection.model.trial import problem_with
from tests.support.bad_models import endless_graph, greedy_graph
from tests.support.project import ROOT
from tests.support.waiting import wait_until

ROWS = [[0.5] * 29] * 2


def test_a_model_that_loads_and_scores_has_no_problem(models_dir: Path) -> None:
    assert problem_with((models_dir / CURRENT / ONNX).read_bytes(), ROWS) is None


@pytest.mark.parametrize(
    ("onnx", "rows", "problem"),
    [
        (b"", ROWS, "InvalidArgument"),
        (b"no graph", ROWS, "InvalidProtobuf"),
        (greedy_graph(), ROWS, "Fail"),
        (greedy_graph(), [[0.5], []], "ValueError"),
    ],
)
def test_a_model_that_does_not_load_or_score_has_one(onnx: bytes, rows: list[list[float]], problem: str) -> None:
    assert problem_with(onnx, rows) == problem


def test_the_process_gets_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\nenv > {tmp_path}/environment\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setenv("API_TOKEN", "a secret")
    monkeypatch.setenv("DATABASE_URL", "another secret")

    assert problem_with(b"", ROWS) is None

    assert "secret" not in (tmp_path / "environment").read_text()


def test_a_process_that_is_too_large_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fraud_detection.model.trial._MEMORY_BYTES", 1)
    monkeypatch.setattr("fraud_detection.model.trial._MEMORY_PER_BYTE", 0)

    with pytest.raises(NoAnswer, match="MemoryError"):
        problem_with(b"x" * 64 * 1024 * 1024, ROWS)


def test_the_process_ends_with_its_parent(tmp_path: Path) -> None:
    (tmp_path / ONNX).write_bytes(endless_graph())
    code = (
        "import sys; from pathlib import Path; from fraud_detection.model.trial import problem_with\n"
        "problem_with(Path(sys.argv[1]).read_bytes(), [[0.5] * 29])"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / ONNX)], cwd=ROOT)
    asked = psutil.Process(parent.pid)
    wait_until(lambda: any(child.cpu_times().user > 1 for child in asked.children()), process=parent)
    (child,) = asked.children()

    parent.kill()
    parent.wait()

    wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)

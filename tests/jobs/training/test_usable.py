"""A new process loads a version as the API does, and what it says is a verdict or none."""

import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from fraud_detection.child import NoAnswer
from fraud_detection.model.files import MANIFEST, ONNX, PICKLE
from fraud_detection.model.read import read_manifest
from fraud_detection.model.write import write_version
from jobs.synthetic.transactions import synthetic
from jobs.training import usable
from jobs.training.forest import fit
from jobs.training.usable import loads_in_fresh_process
from tests.support.project import ROOT


def test_a_whole_version_loads_in_a_fresh_process(make_version: Callable[..., str], tmp_path: Path) -> None:
    assert loads_in_fresh_process(tmp_path / make_version(tmp_path)) is None


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        (MANIFEST, b"{}", "manifest.json is not one of ours"),
        (ONNX, b"not a model", "model.onnx is not the file that the manifest describes"),
    ],
)
def test_a_damaged_version_does_not_load_in_a_fresh_process(
    make_version: Callable[..., str], tmp_path: Path, name: str, content: bytes, complaint: str
) -> None:
    directory = tmp_path / make_version(tmp_path)
    (directory / name).write_bytes(content)

    problem = loads_in_fresh_process(directory)

    assert problem is not None
    assert complaint in problem


def test_a_pickle_of_another_model_is_found_by_its_golden_scores(
    make_version: Callable[..., str], tmp_path: Path
) -> None:
    whole = tmp_path / make_version(tmp_path)
    drawn = synthetic(300, seed=2, fraud_share=0.5)
    other = fit(drawn.matrix, drawn.is_fraud, seed=1)
    mixed = {ONNX: (whole / ONNX).read_bytes(), PICKLE: pickle.dumps(other)}

    version = write_version(tmp_path / "mixed", mixed, read_manifest(whole))

    problem = loads_in_fresh_process(tmp_path / "mixed" / version)

    assert problem is not None
    assert problem.startswith("golden rows: ONNX and pickle differ by ")


@dataclass
class DoesWhenLoaded:
    """Its pickle calls a function: what a damaged pickle, a full disk or the kernel may do to the check."""

    function: Callable[..., object]
    arguments: tuple[object, ...]

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.function, self.arguments


def with_pickle(content: bytes, make_version: Callable[..., str], folder: Path) -> Path:
    whole = folder / make_version(folder)
    files = {ONNX: (whole / ONNX).read_bytes(), PICKLE: content}
    return folder / "other" / write_version(folder / "other", files, read_manifest(whole))


def test_a_pickle_that_does_not_load_is_a_verdict(make_version: Callable[..., str], tmp_path: Path) -> None:
    directory = with_pickle(b"not a pickle", make_version, tmp_path)

    problem = loads_in_fresh_process(directory)

    assert problem is not None
    assert problem.startswith("rf_model.pkl cannot be used (")


@pytest.mark.parametrize(
    ("function", "arguments", "reason", "message"),
    [
        (signal.raise_signal, (signal.SIGKILL,), "crashed", "SIGKILL often means that memory ran out"),
        (signal.raise_signal, (signal.SIGSEGV,), "crashed", "ended by SIGSEGV"),
        (open, ("/nowhere/at/all",), "untried", "FileNotFoundError"),
        (bytearray, (sys.maxsize,), "untried", "MemoryError"),
        (sys.exit, ("interrupted",), "untried", "interrupted"),
    ],
)
def test_a_check_that_comes_to_no_end_is_no_verdict(
    make_version: Callable[..., str],
    tmp_path: Path,
    *,
    function: Callable[..., object],
    arguments: tuple[object, ...],
    reason: str,
    message: str,
) -> None:
    directory = with_pickle(pickle.dumps(DoesWhenLoaded(function, arguments)), make_version, tmp_path)

    with pytest.raises(NoAnswer, match=message) as unanswered:
        loads_in_fresh_process(directory)

    assert unanswered.value.reason == reason


def test_a_check_that_takes_too_long_is_no_verdict(
    make_version: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / make_version(tmp_path)
    monkeypatch.setattr(usable, "CHECK_SECONDS", 0.01)

    with pytest.raises(NoAnswer, match=r"no answer within 0\.01 seconds"):
        loads_in_fresh_process(directory)


def test_a_check_that_cannot_be_started_is_no_verdict(
    make_version: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / make_version(tmp_path)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))

    with pytest.raises(NoAnswer, match="could not be started"):
        loads_in_fresh_process(directory)


def test_the_new_process_waits_for_no_converter() -> None:
    program = "import sys, jobs.training.usable; sys.exit(any(name in sys.modules for name in ('skl2onnx', 'onnx')))"

    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0

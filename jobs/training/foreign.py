"""Has a scikit-learn classifier from elsewhere converted by a confined process, and checks what that returns."""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fraud_detection.child import NoAnswer
from fraud_detection.exit_codes import ExitCode, ExpectedError
from fraud_detection.features import FeatureList, Matrix
from fraud_detection.model.files import ONNX, PICKLE
from fraud_detection.model.manifest import Golden
from jobs.training.confined import FILE_BYTES, printable, received, run_confined
from jobs.training.conversion import FEATURE_NAMES, REPLY, ROWS
from jobs.training.golden import GOLDEN_ROWS
from jobs.training.usable import TOLERANCE

CONVERSION_SECONDS = 120
CHECK_SECONDS = 120
_REPLY_BYTES = 1024**2
_MOST_NOTES = 10


class CannotAdopt(ExpectedError):
    """A file that cannot become a model of this installation; the message says what was expected and what came."""

    exit_code = ExitCode.UNUSABLE


class _Refused(Exception):
    """What the confined process refuses, or what we refuse of its answer."""


@dataclass(frozen=True)
class Converted:
    """What a confined process made of a pickle: plain facts, and files that no process has loaded yet."""

    kind: str
    """The class of the classifier."""
    files: dict[str, bytes]
    """model.onnx and rf_model.pkl."""
    golden: Golden
    largest_difference: float
    """Between the scores of both files."""
    notes: list[str]
    keeps_rows: list[str]
    """Classes of its parts that keep training rows."""


def convert(path: Path, features: FeatureList, rows: Matrix) -> Converted:
    """Convert the classifier in a pickle, in a process of its own, and compare both on `rows`.

    Raises CannotAdopt, and NoAnswer if that process ended or was stopped without one.
    """
    with tempfile.TemporaryDirectory(prefix="fraud-adopt-") as scratch:
        folder = Path(scratch)
        np.save(folder / ROWS, rows)
        (folder / FEATURE_NAMES).write_text(json.dumps(features.names), encoding="utf-8")
        try:
            reply = _answer("convert", path, folder, seconds=CONVERSION_SECONDS)
            files = {name: received(folder, name, FILE_BYTES) for name in (ONNX, PICKLE)}
            return _converted(reply, files, features)
        except _Refused as error:
            raise CannotAdopt(f"{path}: {error}") from error
        except NoAnswer as error:
            hint = "; try again when the machine is less busy, or a smaller model" if error.reason == "timeout" else ""
            raise NoAnswer(
                error.reason, f"{path}: its conversion in a new process gave no verdict: {error}{hint}"
            ) from error


def require_loadable(directory: Path, path: Path) -> None:
    """Load and score the version that was made of `path` in another confined process; raises CannotAdopt, NoAnswer."""
    with tempfile.TemporaryDirectory(prefix="fraud-adopt-") as scratch:
        try:
            _answer("check", directory, Path(scratch), seconds=CHECK_SECONDS)
        except _Refused as error:
            raise CannotAdopt(f"{path}: does not load in a new process: {error}") from error
        except NoAnswer as error:
            raise NoAnswer(error.reason, f"{path}: its check in a new process gave no verdict: {error}") from error


def _answer(action: str, path: Path, folder: Path, *, seconds: float) -> dict[str, Any]:
    """Return what `jobs.training.conversion` answers; raises NoAnswer, _Refused."""
    run_confined(["-m", "jobs.training.conversion", action, str(path.absolute())], folder, seconds=seconds)
    try:
        reply = json.loads(received(folder, REPLY, _REPLY_BYTES))
    except (ValueError, RecursionError) as error:
        raise _Refused(f"a new process answered with what is no JSON ({type(error).__name__})") from error
    if not isinstance(reply, dict):
        raise _Refused("a new process answered with what is no JSON object")
    if "refused" in reply:
        raise _Refused(printable(str(reply["refused"]), 1000))
    return reply


def _converted(reply: dict[str, Any], files: dict[str, bytes], features: FeatureList) -> Converted:
    """Check each fact as one of unknown origin; raises _Refused."""
    try:
        difference = float(reply["largest_difference"])
        rows = np.array(reply["golden"]["rows"], dtype=np.float64)
        scores = np.array(reply["golden"]["scores"], dtype=np.float64)
        kind, notes, keeps_rows = str(reply["kind"]), list(reply["notes"]), list(reply["keeps_rows"])
    except (KeyError, TypeError, ValueError) as error:
        raise _Refused(f"a new process answered with what is no model ({type(error).__name__})") from error
    if not (
        0 <= difference <= TOLERANCE
        and rows.shape == (GOLDEN_ROWS, len(features))
        and scores.shape == (GOLDEN_ROWS,)
        and np.isfinite(rows).all()
        and ((scores >= 0) & (scores <= 1)).all()
    ):
        raise _Refused("a new process answered with what is no model (numbers outside their bounds)")
    return Converted(
        printable(kind, 100),
        files,
        Golden(rows.tolist(), scores.tolist()),
        difference,
        [printable(str(note), 300) for note in notes[:_MOST_NOTES]],
        [printable(str(name), 100) for name in keeps_rows[:_MOST_NOTES]],
    )

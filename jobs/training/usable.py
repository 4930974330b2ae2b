"""Proves that model.onnx and rf_model.pkl score alike, if wanted in a new process, which imports no converter."""

import pickle
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from numpy.typing import NDArray

from fraud_detection.child import ask
from fraud_detection.exit_codes import ExitCode
from fraud_detection.features import Feature, FeatureList, Matrix
from fraud_detection.model.files import ONNX, PICKLE
from fraud_detection.model.read import ModelRefused, read_manifest, read_version
from fraud_detection.model.session import open_session

TOLERANCE = 1e-6
CHECK_SECONDS = 120


class ExportFailed(Exception):
    """A classifier that cannot become model.onnx, or whose files disagree; the message says by how much."""


def score(onnx_bytes: bytes, rows: Matrix) -> NDArray[np.float64]:
    """Return what a version with this model.onnx will score, shape (n,), from 0 to 1."""
    (probabilities,) = open_session(onnx_bytes).run(["probabilities"], {"transactions": rows.astype(np.float32)})
    scores: NDArray[np.float64] = np.clip(probabilities[:, 1].astype(np.float64), 0.0, 1.0)
    return scores


def largest_difference(files: Mapping[str, bytes], rows: Matrix) -> float:
    """Return by how much the scores of model.onnx and rf_model.pkl differ at most on `rows` (at least one).

    TOLERANCE is accepted; NaN, which compares as false, is not.
    """
    classifier = pickle.loads(files[PICKLE])  # noqa: S301  written by `export`
    return float(np.abs(score(files[ONNX], rows) - _probabilities(classifier, rows)).max())


def _probabilities(classifier: Any, rows: Matrix) -> NDArray[np.float64]:
    with warnings.catch_warnings():
        # a model trained on a table with names expects names; the order of our columns was checked against them
        warnings.filterwarnings("ignore", message="X does not have valid feature names")
        probabilities: NDArray[np.float64] = classifier.predict_proba(rows)[:, 1]
    return probabilities


def require_parity(files: Mapping[str, bytes], rows: Matrix) -> float:
    """Return the largest difference; raises ExportFailed if it is above TOLERANCE."""
    difference = largest_difference(files, rows)
    if np.isnan(difference):
        raise ExportFailed("its scores are no numbers (NaN); fit it again on rows without NaN or infinity")
    if not difference <= TOLERANCE:
        raise ExportFailed(
            f"ONNX and pickle score {len(rows)} rows differently, by up to {difference:.2g} ({TOLERANCE:g} is accepted)"
        )
    return difference


def loads_in_fresh_process(directory: Path) -> str | None:
    """Load a version as the API does, and its pickle, in a new process; return the problem, None if there is none.

    In this process a file might load only because of what is already imported.

    Raises NoAnswer if the new process gave no verdict: then the version may be good.
    """
    return ask("jobs.training.usable", str(directory.absolute()), seconds=CHECK_SECONDS)


def main(arguments: list[str]) -> int:
    """`python -m jobs.training.usable DIRECTORY`: load and score a version; the child of `loads_in_fresh_process`."""
    try:
        require_usable(Path(arguments[0]), read=joblib.load)  # reads what pickle wrote; this is what people will use
    except ModelRefused as problem:
        sys.stderr.write(f"{problem}\n")
        return problem.exit_code
    except ExportFailed as problem:
        sys.stderr.write(f"{problem}\n")
        return ExitCode.UNUSABLE
    return ExitCode.DONE


def require_usable(directory: Path, *, read: Callable[[Path], Any], known: Iterable[str] = ()) -> None:
    """Load and score a version as the API does, and its pickle with `read`; `known` as for `read_version`.

    Raises ModelRefused, ExportFailed.
    """
    manifest = read_manifest(directory)
    model = read_version(directory, FeatureList(tuple(Feature(name) for name in manifest.features)), known=known)
    rows = np.array(manifest.golden.rows)
    try:
        classifier = read(directory / PICKLE)
        probabilities = _probabilities(classifier, rows)
    except (OSError, MemoryError):  # says nothing about the version
        raise
    except Exception as error:  # a pickle can raise anything
        raise ExportFailed(f"{PICKLE} cannot be used ({type(error).__name__}: {error})") from error
    difference = np.abs(probabilities - model.score(rows)).max()
    if not difference <= TOLERANCE:
        raise ExportFailed(f"golden rows: ONNX and pickle differ by {difference:.2g}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Turns a classifier into model.onnx and rf_model.pkl, and proves that both score alike."""

import importlib.metadata
import logging
import pickle
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import onnx
from numpy.typing import NDArray
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType

from fraud_detection.child import ask
from fraud_detection.exit_codes import ExitCode
from fraud_detection.features import Feature, FeatureList, Matrix
from fraud_detection.model.files import ONNX, PICKLE
from fraud_detection.model.read import ModelRefused, read_manifest, read_version
from fraud_detection.model.session import open_session

TOLERANCE = 1e-6
_OPSET = 17
CHECK_SECONDS = 120
_LIBRARIES = ("numpy", "scikit-learn", "skl2onnx", "onnx", "onnxruntime")

logger = logging.getLogger(__name__)


class ExportFailed(Exception):
    """A classifier that cannot become model.onnx, or whose files disagree; the message says by how much."""


def to_onnx(classifier: Any, features: FeatureList) -> bytes:
    """Convert a fitted scikit-learn classifier of two classes: float32 rows in, `probabilities` (n, 2) out.

    Raises ExportFailed.
    """
    try:
        # In float64, since a float32 sum over 100 trees strays up to 7e-7 from scikit-learn's; so it is 5e-8.
        return _convert(classifier, len(features), DoubleTensorType, onnx.TensorProto.DOUBLE)
    except Exception:  # the converters raise many types
        logger.info("%s has no float64 form; trying float32", type(classifier).__name__)
    try:
        return _convert(classifier, len(features), FloatTensorType, onnx.TensorProto.FLOAT)
    except Exception as error:
        raise ExportFailed(f"{type(classifier).__name__} cannot be converted to ONNX ({cause(error)})") from error


def cause(error: BaseException) -> str:
    """Return the innermost cause of an error as one line; the converters put whole models into their messages."""
    while error.__cause__ is not None:
        error = error.__cause__
    return textwrap.shorten(f"{type(error).__name__}: {error}", 200, placeholder=" …").removesuffix(":")


def _convert(classifier: Any, width: int, tensor: Any, kind: int) -> bytes:
    graph = convert_sklearn(
        classifier,
        name="fraud_probability",  # otherwise random, and equal models would differ in their digest
        initial_types=[("converted", tensor([None, width]))],
        options={id(classifier): {"zipmap": False}},
        target_opset=_OPSET,
    )
    cast = onnx.helper.make_node("Cast", ["transactions"], ["converted"], to=kind)
    graph.graph.node.insert(0, cast)
    del graph.graph.input[:]
    graph.graph.input.append(onnx.helper.make_tensor_value_info("transactions", onnx.TensorProto.FLOAT, [None, width]))
    content: bytes = graph.SerializeToString()
    score(content, np.zeros((1, width)))  # some graphs convert and cannot run
    return content


def export(classifier: Any, features: FeatureList) -> dict[str, bytes]:
    """Return model.onnx and rf_model.pkl of a classifier; `largest_difference` says whether they agree.

    Raises ExportFailed.
    """
    return {ONNX: to_onnx(classifier, features), PICKLE: pickle.dumps(classifier)}


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


def library_versions() -> dict[str, str]:
    """Return the versions of what makes and scores a model, for its manifest."""
    return {name: importlib.metadata.version(name) for name in _LIBRARIES}


def loads_in_fresh_process(directory: Path) -> str | None:
    """Load a version as the API does, and its pickle, in a new process; return the problem, None if there is none.

    In this process a file might load only because of what is already imported.

    Raises NoAnswer if the new process gave no verdict: then the version may be good.
    """
    return ask("jobs.training.export", str(directory.absolute()), seconds=CHECK_SECONDS)


def main(arguments: list[str]) -> int:
    """`python -m jobs.training.export DIRECTORY`: load and score a version; the child of `loads_in_fresh_process`."""
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

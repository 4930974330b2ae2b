"""Reads a scikit-learn classifier trained elsewhere, and converts it to the files of a version."""

import warnings
from pathlib import Path
from typing import Any

import joblib
import numpy as np

from fraud_detection.child import NoAnswer
from fraud_detection.exit_codes import ExitCode, ExpectedError
from fraud_detection.features import FeatureList, Matrix
from jobs.training.export import ExportFailed, export, loads_in_fresh_process, require_parity


class CannotAdopt(ExpectedError):
    """A file that cannot become a model of this installation; the message says what was expected and what came."""

    exit_code = ExitCode.UNUSABLE


def load_classifier(path: Path, features: FeatureList) -> tuple[Any, list[str]]:
    """Load a pickled classifier that fits the features, and return it with what scikit-learn warns about.

    Loading a pickle runs the code in it. Raises CannotAdopt.
    """
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            classifier = joblib.load(path)  # reads what pickle wrote, and what joblib wrote
    except OSError as error:
        raise CannotAdopt(f"{path}: cannot be read ({error.strerror})") from error
    except Exception as error:  # a pickle can raise anything
        raise CannotAdopt(f"{path}: is no pickle that can be loaded here ({type(error).__name__}: {error})") from error
    _require_fit(classifier, features, path)
    return classifier, [str(warning.message).splitlines()[0] for warning in caught]


def _require_fit(classifier: Any, features: FeatureList, path: Path) -> None:
    """Raise CannotAdopt unless this is a classifier of genuine (0) and fraud (1) over the features, in their order."""
    kind = type(classifier).__name__
    if not callable(getattr(classifier, "predict_proba", None)):
        raise CannotAdopt(f"{path}: expected a classifier with predict_proba, got {kind}")
    width = getattr(classifier, "n_features_in_", None)
    if width is None:
        raise CannotAdopt(f"{path}: expected a trained scikit-learn classifier, got a {kind} without n_features_in_")
    if width != len(features):
        raise CannotAdopt(
            f"{path}: expected a classifier of {len(features)} features, got a {kind} of {width}; "
            "FEATURES_FILE names the features of an installation"
        )
    names = getattr(classifier, "feature_names_in_", None)
    if names is not None and tuple(names) != features.names:
        place = next(place for place, name in enumerate(names) if name != features.names[place])
        raise CannotAdopt(
            f"{path}: feature {place} was {names[place]!r} when it was trained, here it is {features.names[place]!r}; "
            "use a FEATURES_FILE in the order of the model"
        )
    classes = np.asarray(getattr(classifier, "classes_", [])).tolist()
    if classes != [0, 1]:
        raise CannotAdopt(f"{path}: expected the classes 0 (genuine) and 1 (fraud), got {classes}")


def convert(classifier: Any, features: FeatureList, rows: Matrix, path: Path) -> tuple[dict[str, bytes], float]:
    """Return model.onnx and rf_model.pkl of a classifier, and by how much they differ at most on `rows`.

    Raises CannotAdopt.
    """
    try:
        files = export(classifier, features)
        return files, require_parity(files, rows)
    except ExportFailed as error:
        raise CannotAdopt(f"{path}: {error}") from error


def require_loadable(directory: Path, path: Path) -> None:
    """Load the version that was made of `path` in a new process; raises CannotAdopt, NoAnswer."""
    try:
        problem = loads_in_fresh_process(directory)
    except NoAnswer as error:
        raise NoAnswer(error.reason, f"{path}: its check in a new process gave no verdict: {error}") from error
    if problem is not None:
        raise CannotAdopt(f"{path}: does not load in a new process: {problem}")

"""Converts a pickled classifier in a confined process, which leaves its answer as files in its folder."""

import io
import json
import lzma
import pickle
import sys
import warnings
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import sklearn
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import Pipeline
from sklearn.tree._tree import Tree

from fraud_detection.counted import counted
from fraud_detection.features import Feature, FeatureList, Matrix
from fraud_detection.model.files import ONNX
from fraud_detection.model.read import ModelRefused, ModelUndecided, read_manifest
from jobs.training.confined import MEMORY_BYTES, confine
from jobs.training.export import cause, export
from jobs.training.golden import golden
from jobs.training.pickled import NotAllowed, unpacked, unpickle, written_by
from jobs.training.usable import ExportFailed, require_parity, require_usable

REPLY, FEATURE_NAMES, ROWS = "reply.json", "features.json", "rows.npy"
SEED = 1
_CONVERTIBLE = (
    "RandomForestClassifier, ExtraTreesClassifier, GradientBoostingClassifier and LogisticRegression can be, alone or "
    "after a StandardScaler in a Pipeline"
)
_ZIP = b"PK\x03\x04"
_SAVE_AGAIN = "save the model again with pickle.dump or joblib.dump, and copy the file whole"


_KEPT_ROWS = frozenset({"_fit_X", "X_train_", "X_", "support_vectors_"})
"""Attributes in which neighbours, Gaussian processes, label propagation and support vectors keep training rows."""


class Unfit(Exception):
    """A file that cannot become a model of this installation; the message says what was expected and what came."""


@dataclass(frozen=True)
class Loaded:
    """A classifier from elsewhere that fits the features."""

    classifier: Any
    notes: list[str]
    """What scikit-learn warns about, and what was taken out of a search."""
    written_by: str | None
    """The version of scikit-learn, if the file says so."""


def main(arguments: list[str]) -> int:
    """`python -m jobs.training.conversion convert FILE`, or `check VERSION`; the child of `jobs.training.foreign`."""
    refused_limits = confine()
    action, path = arguments
    reply: dict[str, Any] = {}
    try:
        # An estimator may ask for any number of threads and processes, and both are limited here.
        with joblib.parallel_config(backend="sequential"):
            if action == "convert":
                reply = _convert_here(Path(path))
                reply["notes"] += refused_limits
            else:
                _check(Path(path))
    except (OSError, ModelUndecided):  # such as a full disk, which says nothing about the file
        raise
    except MemoryError:
        reply = {"refused": f"needs more than {MEMORY_BYTES // 1024**3} GiB of memory"}
    except (Unfit, ExportFailed, ModelRefused) as error:
        reply = {"refused": str(error)}
    except Exception as error:  # what was read may raise anything
        reply = {"refused": f"cannot be converted ({cause(error)}); {_SAVE_AGAIN}"}
    Path(REPLY).write_text(json.dumps(reply), encoding="utf-8")
    return 0


def _convert_here(path: Path) -> dict[str, Any]:
    """Leave model.onnx and rf_model.pkl in the current folder, and return what else is known; raises Unfit."""
    names = json.loads(Path(FEATURE_NAMES).read_text(encoding="utf-8"))
    features = FeatureList(tuple(Feature(name) for name in names))
    rows = np.load(ROWS, allow_pickle=False)
    loaded = load_classifier(path, features)
    files, difference = convert(loaded, features, rows)
    for name, content in files.items():
        Path(name).write_bytes(content)
    return {
        "kind": type(loaded.classifier).__name__,
        "notes": loaded.notes,
        "keeps_rows": keeps_rows(loaded.classifier),
        "largest_difference": difference,
        "golden": asdict(golden(files[ONNX], rows, SEED)),
    }


def _check(directory: Path) -> None:
    digest = read_manifest(directory).digest
    # Known, because the process that loads it here is already one with limits.
    require_usable(directory, read=lambda path: unpickle(unpacked(path)), known=[digest])


def load_classifier(path: Path, features: FeatureList) -> Loaded:
    """Load a pickled classifier that fits the features; of a search, its best estimator.

    Raises Unfit.
    """
    try:
        content = unpacked(path)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise Unfit(f"cannot be read ({getattr(error, 'strerror', None) or error}); {_SAVE_AGAIN}") from error
    except NotAllowed as error:
        raise Unfit(f"{error}; adopt a smaller model, of fewer or shallower trees") from error
    if content.startswith(_ZIP):
        raise Unfit("is a ZIP archive, not a pickle; unpack it and adopt the pickle of a scikit-learn classifier in it")
    version = written_by(content)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = unpickle(content)
    except NotAllowed as error:
        raise Unfit(
            f"{error}. Nothing outside scikit-learn was run; only a classifier that scikit-learn itself defines can be "
            "adopted, such as the last step of a pipeline"
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # a pickle can raise anything
        problem = _of_another_version(version, error)
        raise Unfit(problem or f"is no pickle that can be loaded here ({cause(error)}); {_SAVE_AGAIN}") from error
    notes = list(dict.fromkeys(str(warning.message).splitlines()[0] for warning in caught))
    classifier = _without_search(found)
    if classifier is not found:
        notes.append(f"The best estimator of its search was adopted, without the {type(found).__name__} around it.")
    _require_fit(classifier, features)
    _require_convertible_parts(classifier)
    return Loaded(classifier, notes, version)


def _of_another_version(version: str | None, error: Exception) -> str | None:
    """Return the complaint about a file that another scikit-learn wrote; None if this one did, or it does not say."""
    if version in {None, sklearn.__version__}:
        return None
    return (
        f"was written by scikit-learn {version}; {sklearn.__version__} runs here and cannot use it ({cause(error)}). "
        f"Fit it again with scikit-learn {sklearn.__version__}"
    )


def _without_search(classifier: Any) -> Any:
    """Return the best estimator of a search, also of one that ends a pipeline; anything else as it is."""
    if isinstance(classifier, Pipeline):
        *steps, (name, last) = classifier.steps
        best = _without_search(last)
        return classifier if best is last else Pipeline([*steps, (name, best)])
    best = getattr(classifier, "best_estimator_", None)
    return classifier if best is None else _without_search(best)


def _require_fit(classifier: Any, features: FeatureList) -> None:
    """Raise Unfit unless this is a classifier of genuine (0) and fraud (1) over the features, in their order."""
    kind = type(classifier).__name__
    if isinstance(classifier, type):
        raise Unfit(f"expected a trained classifier, got the class {classifier.__name__}; save a fitted object of it")
    if not callable(getattr(classifier, "predict_proba", None)):
        instead = (
            "fit the search with refit=True, which keeps its best estimator"
            if _is_search(classifier)
            else "save the scikit-learn classifier itself, fitted so that it has predict_proba"
        )
        raise Unfit(f"expected a classifier with predict_proba, got {kind}; {instead}")
    width = getattr(classifier, "n_features_in_", None)
    if width is None:
        raise Unfit(
            f"expected a trained scikit-learn classifier, got a {kind} without n_features_in_; "
            "fit it before you save it, and begin a Pipeline with a step that scikit-learn defines"
        )
    if width != len(features):
        raise Unfit(
            f"expected a classifier of {counted(len(features), 'feature')}, got a {kind} of {width}; "
            "FEATURES_FILE names the features of an installation"
        )
    names = getattr(classifier, "feature_names_in_", None)
    if names is not None and len(names) != len(features):
        raise Unfit(f"names {counted(len(names), 'feature')} and has {len(features)}; {_SAVE_AGAIN}")
    if names is not None and tuple(names) != features.names:
        place = next(place for place, name in enumerate(names) if name != features.names[place])
        raise Unfit(
            f"feature {place} was {names[place]!r} when it was trained, here it is {features.names[place]!r}; "
            "use a FEATURES_FILE in the order of the model"
        )
    classes = np.asarray(getattr(classifier, "classes_", [])).tolist()
    if classes != [0, 1]:
        raise Unfit(
            f"expected the classes 0 (genuine) and 1 (fraud), got {classes}; fit it on transactions of both, with the "
            "labels 0 and 1"
        )


def _is_search(classifier: Any) -> bool:
    return hasattr(classifier, "cv_results_")


def _require_convertible_parts(classifier: Any) -> None:
    """Raise Unfit for a part whose conversion would fail without saying why, or never end."""
    for part in _Parts.of(classifier):
        if isinstance(part, ColumnTransformer):
            chosen = [column for _, _, columns in part.transformers_ for column in np.atleast_1d(columns)]
            name = next((str(column) for column in chosen if isinstance(column, str)), None)
            if name is not None:
                raise Unfit(
                    f"its ColumnTransformer chooses columns by name ({name!r}), and transactions are scored without "
                    "names; fit it with the positions of the columns"
                )
        elif isinstance(part, Tree) and not _leads_to_leaves(part):
            raise Unfit(f"holds a damaged tree, whose nodes lead nowhere or in a circle; {_SAVE_AGAIN}")
        elif isinstance(part, Tree) and _met_missing_values(part):
            raise Unfit(
                "was fitted on rows with missing values, for which ONNX has no split; fit it on rows without, since "
                "every transaction here has all features"
            )


def _leads_to_leaves(tree: Any) -> bool:
    """Return whether every inner node asks for a feature and has two later nodes below it, as training leaves them."""
    nodes = np.arange(tree.node_count)
    left, right, feature = tree.children_left, tree.children_right, tree.feature
    inner = (left >= 0) | (right >= 0)
    is_whole = (nodes < left) & (left < tree.node_count) & (nodes < right) & (right < tree.node_count) & (left != right)
    is_whole &= (feature >= 0) & (feature < tree.n_features)
    return bool(is_whole[inner].all())


def _met_missing_values(tree: Any) -> bool:
    """Return whether a tree sends missing values another way than one that never met any.

    Such a tree sends them where more rows went. A split of missing from known values has the threshold infinity.
    """
    inner = tree.children_left >= 0
    left = tree.n_node_samples[tree.children_left[inner]]
    right = tree.n_node_samples[tree.children_right[inner]]
    learned = tree.missing_go_to_left[inner].astype(bool) & (left <= right)
    return bool(learned.any() or np.isinf(tree.threshold[inner]).any())


def keeps_rows(classifier: Any) -> list[str]:
    """Return the classes of its parts that keep rows on which they were trained."""
    parts = [part for part in _Parts.of(classifier) if isinstance(part, BaseEstimator)]
    return sorted({type(part).__name__ for part in parts if _KEPT_ROWS & vars(part).keys()})


class _Parts(pickle.Pickler):
    """Finds trees and estimators at any depth, as pickle does."""

    @classmethod
    def of(cls, classifier: Any) -> list[Any]:
        finder = cls(io.BytesIO())
        finder.dump(classifier)
        return finder.found

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.found: list[Any] = []

    def reducer_override(self, part: Any) -> Any:
        if isinstance(part, (Tree, BaseEstimator)):
            self.found.append(part)
        return NotImplemented


def convert(loaded: Loaded, features: FeatureList, rows: Matrix) -> tuple[dict[str, bytes], float]:
    """Return model.onnx and rf_model.pkl of a classifier, and by how much they differ at most on `rows`.

    Raises Unfit.
    """
    try:
        files = export(loaded.classifier, features)
    except ExportFailed as error:
        raise Unfit(_of_another_version(loaded.written_by, error) or f"{error}; {_CONVERTIBLE}") from error
    try:
        return files, require_parity(files, rows)
    except ExportFailed as error:
        raise Unfit(str(error)) from error
    except Exception as error:  # an estimator of another version may miss what this one needs
        problem = _of_another_version(loaded.written_by, error)
        raise Unfit(problem or f"cannot score {len(rows)} rows ({cause(error)})") from error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

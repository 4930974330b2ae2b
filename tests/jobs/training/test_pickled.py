"""A pickle is read whole if a model of scikit-learn wrote it, and calls nothing else."""

import bz2
import gzip
import io
import lzma
import pickle
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import joblib
import numpy as np
import pytest
import sklearn
from scipy.stats import uniform
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import BaggingClassifier, GradientBoostingClassifier, RandomForestClassifier, StackingClassifier
from sklearn.feature_selection import SelectKBest, f_classif
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import make_scorer, roc_auc_score
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV, StratifiedKFold, TunedThresholdClassifierCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from jobs.training import pickled
from jobs.training.pickled import NotAllowed, unpacked, unpickle, written_by

ROWS = np.random.default_rng(1).normal(size=(80, 3))
IS_FRAUD = (ROWS[:, 0] + ROWS[:, 1] > 0).astype(int)
FITTED = LogisticRegression().fit(ROWS, IS_FRAUD)


class Calls:
    """Pickles to a call of `function`."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def by_joblib(thing: object) -> bytes:
    file = io.BytesIO()
    joblib.dump(thing, file)
    return file.getvalue()


def hidden_in_objects(payload: object) -> bytes:
    """joblib writes an array of objects as a pickle within the pickle."""
    return by_joblib(np.array([payload], dtype=object))


def hidden_by_hand(pickled: bytes) -> bytes:
    """As `hidden_in_objects`, where the inner pickle is one that pickle does not write."""
    nothing = np.array([None], dtype=object)
    return by_joblib(nothing).replace(pickle.dumps(nothing, protocol=5), pickled)


def of_a_distribution(code: str) -> bytes:
    """A distribution of SciPy executes a text that lies in its state."""
    distribution = uniform(0, 1).dist
    state = {**cast("dict[str, object]", distribution.__getstate__()), "_parse_arg_template": code}
    return (
        b"\x80\x04cscipy.stats._continuous_distns\nuniform_gen\n)\x81" + pickle.dumps(state, protocol=4)[2:-1] + b"b."
    )


PAYLOADS: dict[str, Callable[[str], bytes]] = {
    "exec": lambda code: pickle.dumps(Calls(exec, code)),
    "exec, protocol 0": lambda code: pickle.dumps(Calls(exec, code), protocol=0),
    "eval in a fitted model": lambda code: pickle.dumps({"model": FITTED, "note": Calls(eval, f"exec({code!r})")}),
    "exec among objects of joblib": lambda code: hidden_in_objects(Calls(exec, code)),
    "exec, compressed": lambda code: gzip.compress(pickle.dumps(Calls(exec, code))),
    "opcode INST": lambda code: b"(S" + repr(code).encode() + b"\ni__builtin__\nexec\n.",
    "opcode INST among objects of joblib": lambda code: hidden_by_hand(
        b"(S" + repr(code).encode() + b"\nibuiltins\nexec\n."
    ),
    "opcode OBJ": lambda code: b"(c__builtin__\nexec\nS" + repr(code).encode() + b"\no.",
    "a path through a module": lambda code: (
        b"\x80\x04\x8c\x07sklearn\x8c\x09os.system\x93("
        + pickle.dumps(f"{sys.executable} -c {code!r}", protocol=4)[2:-1]
        + b"tR."
    ),
    "a program that scikit-learn starts": lambda code: (
        b"\x80\x04csklearn.utils._testing\nassert_run_python_script_without_output\n("
        + pickle.dumps(code, protocol=4)[2:-1]
        + b"tR."
    ),
    "a text that SciPy executes": of_a_distribution,
}


CONTROL = """
import contextlib, joblib, pathlib, sys
for path in pathlib.Path(sys.argv[1]).glob("*.pkl"):
    with contextlib.suppress(Exception):
        joblib.load(path)
"""


def code_that_leaves(marker: Path) -> str:
    return f"open({str(marker)!r}, 'w')"


@pytest.fixture(scope="module")
def that_ran(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Load every payload as an unrestricted program would; give the names of those that ran."""
    folder = tmp_path_factory.mktemp("control")
    for number, name in enumerate(PAYLOADS):
        (folder / f"{number}.pkl").write_bytes(PAYLOADS[name](code_that_leaves(folder / name)))
    subprocess.run([sys.executable, "-c", CONTROL, folder], capture_output=True, check=True)
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("name", PAYLOADS)
def test_no_payload_runs_though_it_would(tmp_path: Path, that_ran: set[str], name: str) -> None:
    (tmp_path / "theirs.pkl").write_bytes(PAYLOADS[name](code_that_leaves(tmp_path / "ran")))

    if name == "a text that SciPy executes":  # such a distribution is left out, so that its search can be adopted
        unpickle(unpacked(tmp_path / "theirs.pkl"))
    else:
        with pytest.raises(NotAllowed, match=r"which is no estimator of scikit-learn|which no model needs"):
            unpickle(unpacked(tmp_path / "theirs.pkl"))

    assert not (tmp_path / "ran").exists()
    assert name in that_ran


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"Pname\n.", "contains the opcode PERSID"),
        (b"\x80\x02\x82\x01.", "contains the opcode EXT1"),
        (b"\x80\x05\x97.", "contains the opcode NEXT_BUFFER"),
        (b"csklearn.ensemble._forest\nRandomForestClassifier\n}S'predict'\nI1\nsb.", "changes a class or a function"),
        (b"csklearn.feature_selection._univariate_selection\nf_classif\n}b.", "changes a class or a function"),
        (b"c_codecs\nencode\n(Vx\nVzlib\ntR.", "encodes text as zlib"),
        (b"c__main__\nWrapped\n.", "names __main__.Wrapped, which is no estimator of scikit-learn"),
        (b"clightgbm.sklearn\nLGBMClassifier\n.", "names lightgbm.sklearn.LGBMClassifier, which is no estimator"),
        (hidden_by_hand(b"csklearn.base\nBaseEstimator\n}b."), "changes a class or a function"),
        (b"csklearn.tests.test_base\nMyEstimator\n.", "names sklearn.tests.test_base.MyEstimator"),
        (b"csklearn.gaussian_process.kernels\nABCMeta\n.", "names sklearn.gaussian_process.kernels.ABCMeta"),
        (b"csklearn.metrics\nget_scorer\n.", "names sklearn.metrics.get_scorer"),
        (b"cscipy.sparse\nload_npz\n.", "names scipy.sparse.load_npz"),
        (b"cnumpy\nload\n.", "names numpy.load"),
        (b"cbuiltins\ngetattr\n.", "names builtins.getattr"),
    ],
)
def test_what_no_model_needs_is_refused_by_name(content: bytes, message: str) -> None:
    with pytest.raises(NotAllowed, match=message):
        unpickle(content)


def search_of_many() -> RandomizedSearchCV:
    scoring = make_scorer(roc_auc_score)
    return RandomizedSearchCV(
        LogisticRegression(), {"C": uniform(1, 2)}, n_iter=2, cv=StratifiedKFold(2), scoring=scoring, random_state=1
    )


MODELS: dict[str, Callable[[], Any]] = {
    "forest": lambda: RandomForestClassifier(3, random_state=np.random.RandomState(1)),
    "boosting": lambda: GradientBoostingClassifier(n_estimators=3),
    "bagging": lambda: BaggingClassifier(n_estimators=2),
    "calibrated": lambda: CalibratedClassifierCV(DecisionTreeClassifier(), method="isotonic", cv=2),
    "neighbours": lambda: KNeighborsClassifier(algorithm="kd_tree"),
    "network": lambda: MLPClassifier(2, max_iter=3),
    "vectors": SVC,
    "pipeline": lambda: make_pipeline(StandardScaler(), SelectKBest(f_classif, k=2), LogisticRegression()),
    "search": search_of_many,
    "threshold": lambda: TunedThresholdClassifierCV(LogisticRegression(), cv=2),
    "stack of searches": lambda: StackingClassifier(
        [("a", GridSearchCV(LogisticRegression(), {"C": [1, 2]}, cv=2)), ("b", DecisionTreeClassifier())], cv=2
    ),
}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_models_of_scikit_learn_are_read_in_every_way_that_they_are_written(make: Callable[[], Any]) -> None:
    model = make().fit(ROWS, IS_FRAUD)
    answer = "predict_proba" if hasattr(model, "predict_proba") else "predict"
    expected = getattr(model, answer)(ROWS)
    written = [by_joblib(model), *(pickle.dumps(model, protocol=number) for number in range(6))]

    read = [unpickle(content) for content in written]

    assert [np.array_equal(getattr(again, answer)(ROWS), expected) for again in read] == [True] * 7
    again = pickle.loads(pickle.dumps(read[0]))  # noqa: S301  read above
    assert np.array_equal(getattr(again, answer)(ROWS), expected)


def test_names_of_columns_are_read_from_a_file_of_joblib() -> None:
    names = np.array(["amount", "hour", "age"], dtype=object)

    assert unpickle(by_joblib(names)).tolist() == ["amount", "hour", "age"]


COMPRESSED: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zlib": zlib.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "lzma": lambda content: lzma.compress(content, format=lzma.FORMAT_ALONE),
    "not at all": bytes,
}


@pytest.mark.parametrize("compress", COMPRESSED.values(), ids=COMPRESSED)
def test_a_file_is_unpacked_whatever_its_name_within_a_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compress: Callable[[bytes], bytes]
) -> None:
    content = by_joblib(FITTED)
    (tmp_path / "model.pkl").write_bytes(compress(content))

    assert unpacked(tmp_path / "model.pkl") == content
    monkeypatch.setattr(pickled, "UNPACKED_BYTES", len(content) - 1)
    with pytest.raises(NotAllowed, match="holds more than 0 MiB, unpacked"):
        unpacked(tmp_path / "model.pkl")


def test_a_pickle_that_is_deep_or_holds_itself_is_only_a_list() -> None:
    assert isinstance(unpickle(b"]" * 100_000 + b"a" * 99_999 + b"."), list)
    assert isinstance(unpickle(b"]q\x00h\x00a."), list)


@pytest.mark.parametrize("protocol", range(6))
def test_the_version_that_wrote_a_model_is_found(protocol: int) -> None:
    assert written_by(pickle.dumps(FITTED, protocol=protocol)) == sklearn.__version__
    assert written_by(pickle.dumps({"a": "dict"}, protocol=protocol)) is None

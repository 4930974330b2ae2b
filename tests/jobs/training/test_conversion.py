"""A classifier of the user becomes the two files of a version, or is refused with the cause in one line."""

import gzip
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import sklearn
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    BaggingClassifier,
    ExtraTreesClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    VotingClassifier,
)
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from fraud_detection.features import Feature, FeatureList
from fraud_detection.model.files import ONNX, PICKLE
from jobs.training.conversion import Loaded, Unfit, convert, keeps_rows, load_classifier
from jobs.training.usable import TOLERANCE

FEATURES = FeatureList((Feature("amount_eur"), Feature("distance_km"), Feature("hour")))
ROWS = np.random.default_rng(1).normal(size=(300, 3))
IS_FRAUD = (ROWS[:, 0] + ROWS[:, 1] > 1).astype(int)
WITH_GAPS = np.where(ROWS > 1.5, np.nan, ROWS)


def saved(classifier: object, folder: Path) -> Path:
    joblib.dump(classifier, folder / "theirs.pkl")
    return folder / "theirs.pkl"


def forest() -> RandomForestClassifier:
    return RandomForestClassifier(3, random_state=1).fit(ROWS, IS_FRAUD)


def test_a_classifier_becomes_the_two_files_of_a_version(tmp_path: Path) -> None:
    loaded = load_classifier(saved(forest(), tmp_path), FEATURES)
    files, difference = convert(loaded, FEATURES, ROWS)

    assert (set(files), loaded.notes, loaded.written_by) == ({ONNX, PICKLE}, [], sklearn.__version__)
    assert difference <= TOLERANCE


def with_names(*names: str) -> RandomForestClassifier:
    """As if it had been trained on a table with these columns."""
    classifier = forest()
    classifier.feature_names_in_ = np.array(names, dtype=object)
    return classifier


def test_one_that_was_trained_on_a_table_of_these_columns_fits(tmp_path: Path) -> None:
    loaded = load_classifier(saved(with_names(*FEATURES.names), tmp_path), FEATURES)

    assert loaded.classifier.feature_names_in_.tolist() == list(FEATURES.names)


def of_four_features() -> LogisticRegression:
    random = np.random.default_rng(1)
    return LogisticRegression().fit(random.normal(size=(50, 4)), np.arange(50) % 2)


def of_classes(*classes: object) -> LogisticRegression:
    return LogisticRegression().fit(ROWS, np.array(classes)[np.arange(300) % len(classes)])


def of_one_class(label: int) -> RandomForestClassifier:
    return RandomForestClassifier(3, random_state=1).fit(ROWS, np.full(300, label))


def without_refit() -> GridSearchCV:
    return GridSearchCV(LogisticRegression(), {"C": [1, 2]}, cv=2, refit=False).fit(ROWS, IS_FRAUD)


class TwoNeighbours:
    """A classifier of another program, of which the converter knows nothing."""

    n_features_in_ = 3
    classes_ = np.array([0, 1])

    def predict_proba(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.full((len(rows), 2), 0.5)


def choosing_columns_by_name() -> object:
    # As if it had been fitted on a table.
    by_position = make_pipeline(ColumnTransformer([("scaled", StandardScaler(), [0])]), LogisticRegression())
    fitted = by_position.fit(ROWS, IS_FRAUD)
    fitted[0].transformers_ = [("scaled", fitted[0].transformers_[0][1], ["amount_eur"])]
    return fitted


def damaged(**nodes: int) -> DecisionTreeClassifier:
    """A tree whose first node, which has others below it, is not as training left it."""
    tree = DecisionTreeClassifier(max_depth=2, random_state=1).fit(ROWS, IS_FRAUD)
    state = tree.tree_.__getstate__()
    for name, value in nodes.items():
        state["nodes"][name][0] = value
    tree.tree_.__setstate__(state)
    return tree


def with_coefficient(value: float) -> LogisticRegression:
    classifier = LogisticRegression().fit(ROWS, IS_FRAUD)
    classifier.coef_[0, 0] = value
    return classifier


AGAIN = "save the model again with pickle.dump or joblib.dump, and copy the file whole"
ITSELF = "save the scikit-learn classifier itself, fitted so that it has predict_proba"
BOTH = "fit it on transactions of both, with the labels 0 and 1"
DAMAGED = f"^holds a damaged tree, whose nodes lead nowhere or in a circle; {AGAIN}"
MISSING = "was fitted on rows with missing values, for which ONNX has no split"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: {"a": "dict"}, "expected a classifier with predict_proba, got dict"),
        (lambda: KMeans(2, n_init=1).fit(ROWS), "expected a classifier with predict_proba, got KMeans"),
        (without_refit, "got GridSearchCV; fit the search with refit=True, which keeps its best estimator"),
        (RandomForestClassifier, "got a RandomForestClassifier without n_features_in_"),
        (of_four_features, "expected a classifier of 3 features, got a LogisticRegression of 4"),
        (
            lambda: with_names("distance_km", "amount_eur", "hour"),
            "feature 0 was 'distance_km' when it was trained, here it is 'amount_eur'",
        ),
        (lambda: of_classes("genuine", "fraud"), r"expected the classes 0 \(genuine\) and 1 \(fraud\), got \['fraud'"),
        (lambda: of_classes(0, 1, 2), r"expected the classes 0 \(genuine\) and 1 \(fraud\), got \[0, 1, 2\]"),
        (lambda: of_classes(0, 2), r"expected the classes 0 \(genuine\) and 1 \(fraud\), got \[0, 2\]"),
        (
            TwoNeighbours,
            r"TwoNeighbours, which is no estimator of scikit-learn .* Nothing outside scikit-learn was run",
        ),
        (lambda: [forest()], f"^expected a classifier with predict_proba, got list; {ITSELF}"),
        (lambda: LinearRegression().fit(ROWS, IS_FRAUD), f"got LinearRegression; {ITSELF}"),
        (lambda: RandomForestClassifier, "^expected a trained classifier, got the class RandomForestClassifier; save"),
        (RandomForestClassifier, "; fit it before you save it"),
        (lambda: of_one_class(1), rf"^expected the classes 0 \(genuine\) and 1 \(fraud\), got \[1\]; {BOTH}"),
        (lambda: with_names("amount_eur"), f"^names 1 feature and has 3; {AGAIN}"),
        (lambda: with_names(*FEATURES.names, "weekday"), f"^names 4 features and has 3; {AGAIN}"),
        (lambda: damaged(left_child=0), DAMAGED),
        (lambda: damaged(right_child=-1), DAMAGED),
        (lambda: damaged(left_child=10**7), DAMAGED),
        (lambda: damaged(feature=10**8), DAMAGED),
        (lambda: damaged(feature=-2), DAMAGED),
        (choosing_columns_by_name, r"its ColumnTransformer chooses columns by name \('amount_eur'\)"),
        (lambda: RandomForestClassifier(3, random_state=1).fit(WITH_GAPS, IS_FRAUD), MISSING),
        (lambda: ExtraTreesClassifier(9, random_state=1).fit(WITH_GAPS, IS_FRAUD), MISSING),
        (lambda: DecisionTreeClassifier(random_state=1).fit(WITH_GAPS, IS_FRAUD), MISSING),
        (
            lambda: make_pipeline(
                StandardScaler(),
                BaggingClassifier(RandomForestClassifier(3, random_state=1), 2, random_state=1),
            ).fit(WITH_GAPS, IS_FRAUD),
            MISSING,
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_its_conversion(
    tmp_path: Path, make: Callable[[], object], message: str
) -> None:
    path = saved(make(), tmp_path)

    with pytest.raises(Unfit, match=message):
        load_classifier(path, FEATURES)


@pytest.mark.parametrize(
    "make",
    [
        forest,
        lambda: ExtraTreesClassifier(9, random_state=1).fit(ROWS, IS_FRAUD),
        lambda: DecisionTreeClassifier(random_state=1, ccp_alpha=0.01).fit(ROWS, IS_FRAUD, np.arange(300) % 3),
        lambda: BaggingClassifier(DecisionTreeClassifier(), 3).fit(ROWS, IS_FRAUD),
    ],
)
def test_trees_that_met_no_missing_value_are_not_taken_for_others(tmp_path: Path, make: Callable[[], object]) -> None:
    load_classifier(saved(make(), tmp_path), FEATURES)


def random_search() -> RandomizedSearchCV:
    return RandomizedSearchCV(
        RandomForestClassifier(3, random_state=1), {"max_depth": [2, 3]}, n_iter=2, cv=2, random_state=1
    )


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (random_search, "RandomForestClassifier"),
        (lambda: GridSearchCV(LogisticRegression(), {"C": [0.1, 1]}, cv=2), "LogisticRegression"),
        (lambda: make_pipeline(StandardScaler(), random_search()), "Pipeline"),
        (
            lambda: GridSearchCV(make_pipeline(StandardScaler(), LogisticRegression()), {"logisticregression__C": [1]}),
            "Pipeline",
        ),
    ],
)
def test_of_a_search_the_best_estimator_is_taken(tmp_path: Path, make: Callable[[], Any], kind: str) -> None:
    search = make().fit(ROWS, IS_FRAUD)

    loaded = load_classifier(saved(search, tmp_path), FEATURES)
    files, difference = convert(loaded, FEATURES, ROWS)

    taken = pickle.loads(files[PICKLE])  # noqa: S301  made above
    assert type(taken).__name__ == kind
    assert "best_estimator_" not in str(files[PICKLE])
    assert np.array_equal(taken.predict_proba(ROWS), search.predict_proba(ROWS))
    assert loaded.notes == [
        f"The best estimator of its search was adopted, without the {type(search).__name__} around it."
    ]
    assert difference <= TOLERANCE


@pytest.mark.parametrize(
    ("make", "cause"),
    [
        (lambda: HistGradientBoostingClassifier(max_iter=3), "HistGradientBoostingClassifier cannot be converted"),
        (
            lambda: VotingClassifier([("a", LogisticRegression()), ("b", DecisionTreeClassifier())], voting="soft"),
            "VotingClassifier cannot be converted",
        ),
    ],
)
def test_what_cannot_be_converted_is_told_in_one_line_with_what_can(make: Callable[[], Any], cause: str) -> None:
    loaded = Loaded(make().fit(ROWS, IS_FRAUD), [], sklearn.__version__)

    with pytest.raises(Unfit, match=rf"^{cause} to ONNX \(.*\); RandomForestClassifier, .* can be") as refused:
        convert(loaded, FEATURES, ROWS)

    assert len(str(refused.value)) < 500
    assert "\n" not in str(refused.value)


def as_by_version(content: bytes, version: str) -> bytes:
    ours = f"_sklearn_version\x94\x8c\x05{sklearn.__version__}".encode("latin-1")
    assert ours in content
    return content.replace(ours, f"_sklearn_version\x94\x8c\x05{version}".encode("latin-1"))


def test_warnings_of_the_loader_are_passed_on_once(tmp_path: Path) -> None:
    (tmp_path / "theirs.pkl").write_bytes(as_by_version(pickle.dumps(forest()), "0.9.9"))

    loaded = load_classifier(tmp_path / "theirs.pkl", FEATURES)

    assert [note[:54] for note in loaded.notes] == [
        "Trying to unpickle estimator DecisionTreeClassifier fr",
        "Trying to unpickle estimator RandomForestClassifier fr",
    ]


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda content: content.replace(b"sklearn.tree._classes", b"sklearn.tree._nowhere"), "ModuleNotFoundError"),
        (lambda content: content.replace(b"DecisionTreeClassifier", b"DecisionTreeClassifieR"), "AttributeError"),
        (lambda content: content.replace(b"missing_go_to_left", b"missing_go_to_lefT"), "ValueError: node array"),
    ],
)
def test_a_file_of_another_scikit_learn_names_both_versions(
    tmp_path: Path, change: Callable[[bytes], bytes], cause: str
) -> None:
    (tmp_path / "theirs.pkl").write_bytes(change(as_by_version(pickle.dumps(forest()), "1.2.2")))

    message = rf"^was written by scikit-learn 1\.2\.2; {sklearn.__version__} runs here and cannot use it \({cause}"
    with pytest.raises(Unfit, match=message) as refused:
        load_classifier(tmp_path / "theirs.pkl", FEATURES)

    assert "\n" not in str(refused.value)


def test_an_estimator_of_another_version_that_loads_and_cannot_score_names_both() -> None:
    classifier = forest()
    del classifier.n_outputs_

    with pytest.raises(Unfit, match=r"was written by scikit-learn 1\.2\.2; .* runs here and cannot use it"):
        convert(Loaded(classifier, [], "1.2.2"), FEATURES, ROWS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"cannot be read \(No such file"),
        (b"", r"is no pickle that can be loaded here \(EOFError"),
        (b"\x80\x04garbage", "is no pickle that can be loaded here"),
        (b"\x1f\x8bgarbage", "cannot be read"),
        (b"\x78\x9cgarbage", "cannot be read"),
        (b"BZhgarbage", "cannot be read"),
        (b"\xfd7zXZgarbage", "cannot be read"),
        (b"amount,is_fraud\n12.50,0\n", "is no pickle that can be loaded here"),
        (b"", rf"is no pickle that can be loaded here \(EOFError\); {AGAIN}$"),
        (pickle.dumps(forest())[:-100], rf"is no pickle that can be loaded here \(.*\); {AGAIN}$"),
        (gzip.compress(pickle.dumps(forest()))[:-100], rf"cannot be read \(.*\); {AGAIN}$"),
        (b"PK\x03\x04\x14\0archive/data.pkl", "is a ZIP archive, not a pickle; unpack it and adopt the pickle"),
    ],
)
def test_a_file_that_is_no_pickle_is_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "theirs.pkl").write_bytes(content)

    with pytest.raises(Unfit, match=f"^{message}"):
        load_classifier(tmp_path / "theirs.pkl", FEATURES)


def test_a_file_that_unpacks_to_too_much_is_refused_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.training.pickled.UNPACKED_BYTES", 2 * 1024**2)
    (tmp_path / "theirs.pkl").write_bytes(gzip.compress(b"\0" * (2 * 1024**2 + 1)))

    with pytest.raises(Unfit, match=r"^holds more than 2 MiB, unpacked; adopt a smaller model"):
        load_classifier(tmp_path / "theirs.pkl", FEATURES)


def test_a_model_whose_scores_are_no_numbers_is_refused() -> None:
    with pytest.raises(Unfit, match=r"^its scores are no numbers \(NaN\); fit it again on rows without NaN"):
        convert(Loaded(with_coefficient(np.nan), [], sklearn.__version__), FEATURES, ROWS)


def test_a_model_whose_scores_do_not_survive_the_conversion_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.training.usable.TOLERANCE", -1.0)

    with pytest.raises(Unfit, match="score 300 rows differently"):
        convert(Loaded(forest(), [], sklearn.__version__), FEATURES, ROWS)


@pytest.mark.parametrize(
    ("classifier", "parts"),
    [
        (make_pipeline(StandardScaler(), KNeighborsClassifier()), ["KNeighborsClassifier"]),
        (SVC(), ["SVC"]),
        (BaggingClassifier(KNeighborsClassifier(), 2), ["KNeighborsClassifier"]),
        (GaussianProcessClassifier(), ["_BinaryGaussianProcessClassifierLaplace"]),
        (RandomForestClassifier(3), []),
        (LogisticRegression(), []),
    ],
)
def test_names_the_parts_that_keep_training_rows(classifier: Any, parts: list[str]) -> None:
    assert keeps_rows(classifier.fit(ROWS, IS_FRAUD)) == parts

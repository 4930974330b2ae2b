"""A feature list accepts finite numbers within its bounds, and names what it refuses."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fraud_detection.contract import SCALED_AMOUNT
from fraud_detection.features import (
    BadFeatureList,
    Feature,
    FeatureList,
    InvalidTransactions,
    default_features,
    load_features,
)
from fraud_detection.model.manifest import AmountScaling
from jobs.exchange.transaction_file import pages, read_layout
from jobs.synthetic.statistics import PUBLIC_SCALING
from tests.support.no_files import FOLDER_PIPE_AND_DEVICE

TWO = FeatureList((Feature("amount", minimum=0, maximum=1000), Feature("age_days")))


def test_the_default_list_is_the_contract() -> None:
    names = default_features().names

    assert names == (*(f"V{number}" for number in range(1, 29)), "Amount_scaled")


def test_the_bounds_of_the_default_list_are_ten_times_the_real_range(real_data: Path) -> None:
    real = pd.read_csv(real_data)
    real[SCALED_AMOUNT] = PUBLIC_SCALING.scaled(real["Amount"].to_numpy())
    features = default_features()

    rounding = 0.1 + 1e-9  # two digits after the point, times ten
    for bounds, extremes in ((features.minimums, real.min()), (features.maximums, real.max())):
        beyond = np.abs(bounds) - 10 * np.abs(extremes[list(features.names)])
        assert ((beyond >= 0) & (beyond <= rounding)).all()


def test_an_unscaled_amount_in_the_place_of_the_scaled_one_is_refused_with_the_way_out() -> None:
    with pytest.raises(InvalidTransactions) as refused:
        default_features().to_matrix([[0.0] * 28 + [5000.0]])

    assert str(refused.value).startswith(
        "row 0, feature Amount_scaled: expected a finite number from -3.6 to 782.4. If it is in units of the currency, "
        "send the row by name, with Amount in place of Amount_scaled. If the value is right, set FEATURES_FILE"
    )


def test_no_real_row_is_suspicious_and_one_that_was_never_seen_is(real_data: Path) -> None:
    layout = read_layout(real_data, default_features(), strict=False)
    matrix = np.vstack([page.matrix for page in pages(real_data, default_features(), layout, scaling=PUBLIC_SCALING)])
    unscaled = np.array([[0.0] * 29, [0.0] * 28 + [500.0], [3.0] * 28 + [500.0]])

    assert default_features().check(matrix) == 0
    assert default_features().check(unscaled) == 2
    assert TWO.check(np.array([[1000.0, -1e9]])) == 0


def test_a_stored_row_is_judged_by_the_bounds_of_its_version() -> None:
    rows, before, since = np.array([[0.0] * 28 + [5000.0]]), np.array([4]), np.array([5])
    wider = FeatureList(tuple(Feature(name, -6000, 6000) for name in default_features().names))

    assert not default_features().outside(rows, before).any()
    assert default_features().outside(rows, since).tolist() == [[False] * 28 + [True]]
    assert default_features().outside(np.full((1, 29), np.nan), before).all()
    assert not wider.outside(rows, since).any()
    assert TWO.outside(np.array([[5000.0, 0.0]]), before).tolist() == [[True, False]]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (None, "expected a list of at least one row"),
        ([], "expected a list of at least one row"),
        ([5], "row 0: expected a list of 2 numbers, got a number"),
        ([[1]], "row 0: expected 2 numbers (amount to age_days), got 1"),
        ([[1, 2], [1, 2, 3]], "row 1: expected 2 numbers (amount to age_days), got 3"),
        ([[1, 2], [1, True]], "row 1, feature age_days: expected a number, got a boolean"),
        ([["1.0", 2]], "row 0, feature amount: expected a number, got a string"),
        ([[1, None]], "row 0, feature age_days: expected a number, got null"),
        ([[1, []]], "row 0, feature age_days: expected a number, got a list"),
        ([[1, {}]], "row 0, feature age_days: expected a number, got an object"),
        ([[1, float("inf")]], "row 0, feature age_days: expected a finite number from -1e+09 to 1e+09"),
        ([[1, float("nan")]], "row 0, feature age_days: expected a finite number from -1e+09 to 1e+09"),
        ([[1, 10**400]], "row 0, feature age_days: expected a finite number from -1e+09 to 1e+09"),
        (
            [[-1, 2]],
            "row 0, feature amount: expected a finite number from 0 to 1000. If the value is right, set FEATURES_FILE "
            "to a list with the same names and wider bounds; `fraudctl features show --json` prints the present list",
        ),
        ([{"amount": 1}], "row 0: expected 2 features by name; missing: age_days"),
        ([{"amount": 1, "age": 2}], "row 0: expected 2 features by name; missing: age_days; unknown: age"),
        (
            [{"amount": 1, "age_days": 2, "x": 3, "4111 1111": 4}],
            "row 0: expected 2 features by name; unknown: x, a name that no feature can have",
        ),
        (
            [{"amount": 1, "age_days": 2, **dict.fromkeys("rstuvwxyz", 0)}],
            "row 0: expected 2 features by name; unknown: r, s, t, u, v and 4 more",
        ),
        (
            [{"amount": 1, "age_days": 2, "Amount": 3}],
            "row 0: Amount is not a feature here; the API scales an amount only for the feature Amount_scaled",
        ),
        ([{"amount": 1, "age_days": 2}, [1, 2]], "row 1: row 0 is an object, so every row must be one"),
        ([[1, 2], {"amount": 1, "age_days": 2}], "row 1: expected a list of 2 numbers, got an object"),
    ],
)
def test_refuses_what_is_no_transaction_and_names_row_and_feature(rows: object, message: str) -> None:
    with pytest.raises(InvalidTransactions) as refused:
        TWO.to_matrix(rows)

    assert str(refused.value) == message


SCALING = AmountScaling(mean=88.35, standard_deviation=250.12)
WITH_AMOUNT = FeatureList((Feature("V1"), Feature("Amount_scaled", -10, 10)))
WITH_BOTH = FeatureList((Feature("Amount"), Feature("Amount_scaled")))


def test_an_amount_is_scaled_bit_by_bit_as_an_import_scales_it(tmp_path: Path) -> None:
    cents = np.random.default_rng(5).integers(0, 200_000, size=2000)
    amounts = [f"{number / 100:.2f}" for number in cents]
    path = tmp_path / "history.csv"
    path.write_text("V1,Amount,Class\n" + "".join(f"0.5,{amount},0\n" for amount in amounts))
    rows = json.loads(f'[{", ".join(f"""{{"Amount": {amount}, "V1": 0.5}}""" for amount in amounts)}]')

    read = pages(path, WITH_AMOUNT, read_layout(path, WITH_AMOUNT), scaling=SCALING)

    imported = np.vstack([page.matrix for page in read])
    assert WITH_AMOUNT.to_numbers(rows, SCALING).tobytes() == imported.tobytes()


def test_rows_with_amount_and_with_scaled_amount_may_stand_in_one_request() -> None:
    rows = [{"V1": 1, "Amount": 88.35}, {"Amount_scaled": 2, "V1": 3}]

    assert WITH_AMOUNT.to_numbers(rows, SCALING).tolist() == [[1, 0], [3, 2]]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"Amount": 1, "Amount_scaled": 1, "V1": 1}, "expected either Amount or Amount_scaled, got both"),
        ({"Amount": 1}, "expected 2 features by name; missing: V1"),
        ({"V1": 1}, "expected 2 features by name; missing: Amount_scaled (or Amount)"),
        ({"V1": 1, "amount": 1}, "expected 2 features by name; missing: Amount_scaled (or Amount); unknown: amount"),
    ],
)
def test_the_names_of_a_row_with_an_amount_are_checked(row: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidTransactions) as refused:
        WITH_AMOUNT.to_numbers([row], SCALING)

    assert str(refused.value) == f"row 0: {message}"


@pytest.mark.parametrize(
    ("amount", "message"),
    [
        (True, "expected a number, got a boolean"),
        ("149.62", "expected a number, got a string"),
        (None, "expected a number, got null"),
        ([], "expected a number, got a list"),
        (float("inf"), "expected a finite number from -2412.85 to 2589.55, which is Amount_scaled from -10 to 10"),
        (-(10**400), "expected a finite number from -2412.85 to 2589.55, which is Amount_scaled from -10 to 10"),
        (
            2590,
            "expected a finite number from -2412.85 to 2589.55, which is Amount_scaled from -10 to 10. If the value",
        ),
    ],
)
def test_an_amount_that_cannot_be_scaled_is_refused_as_it_was_sent(amount: object, message: str) -> None:
    with pytest.raises(InvalidTransactions) as refused:
        WITH_AMOUNT.to_numbers([{"V1": 1, "Amount": amount}], SCALING)

    assert str(refused.value).startswith(f"row 0, Amount: {message}")


def test_an_amount_needs_a_model_that_says_how_to_scale_it() -> None:
    with pytest.raises(InvalidTransactions, match="row 0: the current model does not say how to scale Amount"):
        WITH_AMOUNT.to_matrix([{"V1": 1, "Amount": 1}])


def test_an_amount_that_is_a_feature_itself_is_not_scaled() -> None:
    assert WITH_BOTH.to_numbers([{"Amount_scaled": 1, "Amount": 2}], SCALING).tolist() == [[2, 1]]
    with pytest.raises(InvalidTransactions, match=r"missing: Amount_scaled$"):
        WITH_BOTH.to_numbers([{"Amount": 2}], SCALING)


def test_accepts_subnormals_negative_zero_and_integers() -> None:
    assert TWO.to_matrix([[5e-324, -0.0], [7, -3]]).tolist() == [[5e-324, -0.0], [7.0, -3.0]]


def test_a_list_of_one_feature_names_just_that_one() -> None:
    with pytest.raises(InvalidTransactions, match=r"expected 1 number \(amount\), got 2"):
        FeatureList((Feature("amount"),)).to_matrix([[1, 2]])


def test_bounds_may_change_without_another_digest_and_names_may_not() -> None:
    wider = FeatureList((Feature("amount"), Feature("age_days")))
    renamed = FeatureList((Feature("amount"), Feature("age")))

    assert TWO.digest == wider.digest != renamed.digest


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", 'expected {"features"'),
        ('{"features": [], "x": 1}', 'expected {"features"'),
        ('{"features": []}', "expected 1 to 500 features, got 0"),
        ('{"features": ["V1"]}', 'feature 0: expected an object with a "name"'),
        ('{"features": [{"name": "a", "unit": "EUR"}]}', "feature 0: expected name, minimum, maximum, description, "),
        ('{"features": [{"name": "1st"}]}', "feature 0: expected a name of letters"),
        ('{"features": [{"name": "Class"}]}', "feature 0: 'Class' is a column of every store"),
        ('{"features": [{"name": "a"}, {"name": "A"}]}', "feature 1: 'A' appears twice"),
        (
            '{"features": [{"name": "a", "minimum": 2, "maximum": 1}]}',
            "feature a: expected -1e+09 <= minimum < maximum",
        ),
        (
            '{"features": [{"name": "a", "seen_minimum": 2, "seen_maximum": 1}]}',
            "feature a: expected seen_minimum <= seen_maximum, got 2 and 1",
        ),
        ('{"features": [{"name": "a", "minimum": true}]}', "feature 0: expected a number as minimum, got a boolean"),
        ('{"features": [{"name": "a", "maximum": "9"}]}', "feature 0: expected a number as maximum, got a string"),
        ('{"features": [{"name": "a", "description": 9}]}', "feature 0: expected a text as description, got a number"),
        ('{"features": [{"name": "a", "maximum": 1' + "0" * 400 + "}]}", "feature a: expected -1e+09 <= minimum"),
    ],
)
def test_a_bad_features_file_is_refused_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "features.json"
    path.write_text(text)

    with pytest.raises(BadFeatureList) as refused:
        load_features(path)

    assert str(refused.value).startswith(f"{path}: {message}")


def test_a_features_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadFeatureList, match="cannot be read"):
        load_features(tmp_path / "none.json")


@pytest.mark.parametrize(("make", "kind"), FOLDER_PIPE_AND_DEVICE)
def test_a_features_file_that_is_no_file_is_named_and_never_waited_for(
    tmp_path: Path, make: Callable[[Path], object], kind: str
) -> None:
    make(tmp_path / "features.json")

    with pytest.raises(BadFeatureList, match=rf"features.json: cannot be read \(expected a file, got {kind}\)"):
        load_features(tmp_path / "features.json")


def test_reads_a_features_file(tmp_path: Path) -> None:
    path = tmp_path / "features.json"
    entry = {"name": "amount", "minimum": 0, "maximum": 1000, "description": "in euro", "seen_maximum": 9}
    path.write_text(json.dumps({"features": [entry, {"name": "age_days"}]}))

    assert load_features(path).features == (
        Feature("amount", 0, 1000, "in euro", seen_maximum=9),
        Feature("age_days"),
    )

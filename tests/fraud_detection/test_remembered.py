"""An installation remembers the file of its feature list beside its SQLite store."""

import json
from pathlib import Path

import pytest

from fraud_detection.features import BadFeatureList, load_features
from fraud_detection.remembered import features_file, remember_features
from fraud_detection.settings import SharedSettings


@pytest.fixture(autouse=True)
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a folder for the store in it."""
    folder = tmp_path / "checkout"
    (folder / "data").mkdir(parents=True)
    monkeypatch.chdir(folder)
    return folder


def write_list(path: str, *, maximum: float = 10) -> None:
    Path(path).write_text(json.dumps({"features": [{"name": "amount", "maximum": maximum}]}))


def settings(**variables: str) -> SharedSettings:
    return SharedSettings.from_env(variables)


def test_without_a_list_of_its_own_there_is_nothing_to_remember() -> None:
    remember_features(settings())

    assert features_file(settings()) is None
    assert list(Path("data").iterdir()) == []


def test_the_list_is_found_without_the_variable_and_corrected_bounds_count() -> None:
    write_list("features.json")

    remember_features(settings(FEATURES_FILE="features.json"))
    write_list("features.json", maximum=20)

    assert load_features(features_file(settings())).features[0].maximum == 20


def test_the_variable_comes_first_and_is_what_is_remembered_next() -> None:
    write_list("first.json")
    write_list("second.json", maximum=20)
    remember_features(settings(FEATURES_FILE="first.json"))

    chosen = settings(FEATURES_FILE="second.json")
    assert features_file(chosen) == Path("second.json")
    remember_features(chosen)

    assert load_features(features_file(settings())).features[0].maximum == 20


def test_a_change_that_breaks_off_leaves_what_was_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    write_list("first.json")
    write_list("second.json", maximum=20)
    remember_features(settings(FEATURES_FILE="first.json"))

    def fail(*_: object) -> None:
        raise OSError("No space left on device")

    with monkeypatch.context() as full:
        full.setattr(Path, "symlink_to", fail)
        with pytest.raises(OSError, match="No space left"):
            remember_features(settings(FEATURES_FILE="second.json"))

    assert load_features(features_file(settings())).features[0].maximum == 10


def test_a_checkout_that_moves_keeps_its_list(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_list("features.json")
    remember_features(settings(FEATURES_FILE=str(checkout / "features.json")))

    moved = checkout.rename(checkout.with_name("moved"))
    monkeypatch.chdir(moved)

    assert features_file(settings()) == moved / "features.json"


def test_a_data_folder_that_is_a_link_keeps_its_list(checkout: Path) -> None:
    (checkout / "data").rename(checkout.parent / "volume")
    (checkout / "data").symlink_to(checkout.parent / "volume")
    write_list("features.json")

    remember_features(settings(FEATURES_FILE="features.json"))

    assert features_file(settings()) == checkout / "features.json"


def test_a_file_in_the_place_of_the_link_stays_and_counts(checkout: Path) -> None:
    write_list("features.json")
    write_list("data/features.json", maximum=20)

    remember_features(settings(FEATURES_FILE="features.json"))

    assert load_features(features_file(settings())).features[0].maximum == 20


def test_a_list_that_is_gone_is_named(checkout: Path) -> None:
    write_list("features.json")
    remember_features(settings(FEATURES_FILE="features.json"))
    Path("features.json").unlink()

    with pytest.raises(BadFeatureList) as missing:
        load_features(features_file(settings()))

    assert str(missing.value) == (
        f"{checkout / 'features.json'}: cannot be read (No such file or directory); "
        "restore it, or let FEATURES_FILE name the feature list"
    )


POSTGRESQL = "postgresql://user:password@host/database"


def test_what_an_sqlite_store_remembers_counts_when_it_is_copied_to_postgresql(checkout: Path) -> None:
    write_list("features.json")
    remember_features(settings(FEATURES_FILE="features.json"))

    assert features_file(settings(DATABASE_URL=POSTGRESQL)) == checkout / "features.json"


def test_postgresql_remembers_nothing_on_this_machine() -> None:
    write_list("features.json")

    remember_features(settings(FEATURES_FILE="features.json", DATABASE_URL=POSTGRESQL))

    assert list(Path("data").iterdir()) == []

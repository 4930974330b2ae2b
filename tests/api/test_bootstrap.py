import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from api import bootstrap as program
from api.bootstrap import bootstrap
from fraud_detection import logs
from fraud_detection import model as models
from fraud_detection.features import FeatureList
from fraud_detection.lock import promoter
from fraud_detection.model import AmountScaling, ModelRefused
from fraud_detection.settings import SharedSettings
from fraud_detection.store import Store


@pytest.fixture
def fresh(location: str | Path, tmp_path: Path, make_version: Callable[..., str]) -> dict[str, str]:
    """The variables of an installation that has nothing but a baseline, on each database in turn."""
    version = make_version(tmp_path / "made")
    (tmp_path / "made" / version).rename(tmp_path / "baseline")
    environment = {
        "MODEL_PATH": str(tmp_path / "models" / "rf_model.pkl"),
        "LATEST_DB": str(tmp_path / "data" / "requests.db"),
        "BASELINE_DIR": str(tmp_path / "baseline"),
    }
    return environment | ({"DATABASE_URL": location} if isinstance(location, str) else {})


@pytest.fixture
def settings(fresh: dict[str, str]) -> SharedSettings:
    return SharedSettings.from_env(fresh)


def test_an_installation_can_serve_after_it(settings: SharedSettings, features: FeatureList) -> None:
    bootstrap(settings)

    model = models.load(settings.model_path, features)
    Store.open(settings.store_location, features).close()
    (line,) = models.journal(settings.models_dir)
    assert (line["event"], line["version"], line["actor"]) == ("promoted", model.version, "bootstrap")


def test_the_reference_of_the_model_in_service_has_its_classic_path(settings: SharedSettings) -> None:
    bootstrap(settings)

    link = settings.latest_db.parent / models.REFERENCE
    if settings.database_url is None:
        assert str(link.readlink()) == "../models/current/reference_data.db"
    else:
        assert not link.is_symlink()


def test_repeating_it_changes_nothing(settings: SharedSettings) -> None:
    bootstrap(settings)
    before = models.journal(settings.models_dir), models.current_version(settings.models_dir)

    bootstrap(settings)

    assert (models.journal(settings.models_dir), models.current_version(settings.models_dir)) == before


def test_it_finishes_a_first_promotion_that_was_killed(settings: SharedSettings, features: FeatureList) -> None:
    bootstrap(settings)
    settings.model_path.unlink()

    bootstrap(settings)

    assert models.load(settings.model_path, features).version == models.current_version(settings.models_dir)


def test_a_model_in_service_stays(settings: SharedSettings, models_dir: Path, make_version: Callable[..., str]) -> None:
    before = models.current_version(models_dir)

    bootstrap(settings)

    assert models.current_version(models_dir) == before


def test_the_baseline_takes_over_the_scaling_that_the_store_has_fixed(
    settings: SharedSettings, features: FeatureList
) -> None:
    store = Store.create_or_migrate(settings.store_location, features)
    with store.begin() as connection:
        store.set_meta(connection, "amount_scaling", json.dumps({"mean": 12.5, "standard_deviation": 3.0}))
    store.close()

    bootstrap(settings)

    model = models.load(settings.model_path, features)
    assert model.manifest.amount_scaling == AmountScaling(12.5, 3.0)


def test_somebodys_own_reference_file_stays(settings: SharedSettings) -> None:
    link = settings.latest_db.parent / models.REFERENCE
    link.parent.mkdir(exist_ok=True)
    link.write_text("precious")

    bootstrap(settings)

    assert link.read_text() == "precious"


def test_without_a_baseline_the_next_step_is_named(settings: SharedSettings, tmp_path: Path) -> None:
    (tmp_path / "baseline").rename(tmp_path / "elsewhere")

    with pytest.raises(ModelRefused, match=r"python -m jobs\.seed --out .*baseline"):
        bootstrap(settings)


def test_a_baseline_that_could_not_serve_is_not_installed(settings: SharedSettings, tmp_path: Path) -> None:
    (tmp_path / "baseline" / models.ONNX).write_bytes(b"something else")

    with pytest.raises(ModelRefused):
        bootstrap(settings)

    assert models.current_version(settings.models_dir) is None
    assert models.versions(settings.models_dir) == []


@pytest.fixture
def run(fresh: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run the program itself; its log stays with pytest."""

    def main(**variables: str) -> int:
        for name, value in (fresh | variables).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(logs, "configure", lambda *_: None)
        return program.main()

    return main


def test_it_says_what_it_did(run: Callable[..., int], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert run() == 0

    said = "\n".join(record.getMessage() for record in caplog.records)
    assert "29 features" in said
    assert "is in service" in said
    assert "finds everything in place" in said


@pytest.mark.parametrize(
    ("wrong", "status", "message"),
    [
        ({"FRAUD_THRESHOLD": "2"}, 2, "FRAUD_THRESHOLD"),
        ({"FEATURES_FILE": "nowhere.json"}, 2, "nowhere.json"),
        ({"BASELINE_DIR": "nowhere"}, 3, "BASELINE_DIR"),
    ],
)
def test_what_is_wrong_is_one_line_and_an_exit_code(
    run: Callable[..., int], caplog: pytest.LogCaptureFixture, wrong: dict[str, str], status: int, message: str
) -> None:
    assert run(**wrong) == status

    assert message in caplog.records[-1].getMessage()
    assert caplog.records[-1].exc_info is None


def test_it_does_not_come_between_another_promoter(run: Callable[..., int], settings: SharedSettings) -> None:
    with promoter(settings.models_dir):
        assert run() == 1

    assert models.current_version(settings.models_dir) is None


def test_a_pod_starts_while_a_promoter_waits_for_it(run: Callable[..., int], settings: SharedSettings) -> None:
    bootstrap(settings)

    with promoter(settings.models_dir):
        assert run() == 0


def test_somebodys_own_model_is_neither_served_nor_replaced(settings: SharedSettings) -> None:
    settings.models_dir.mkdir()
    settings.model_path.write_bytes(b"somebody's own")

    with pytest.raises(ModelRefused, match="fraudctl models adopt"):
        bootstrap(settings)

    assert settings.model_path.read_bytes() == b"somebody's own"

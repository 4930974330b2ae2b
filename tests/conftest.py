"""What every test may ask for: a feature list, an empty store on each database, a tiny real model, the sample."""

import dataclasses
import logging
import os
import pickle
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import sqlalchemy as sa
from skl2onnx import to_onnx
from sklearn.ensemble import RandomForestClassifier

from fraud_detection.clock import Clock
from fraud_detection.features import FeatureList, Matrix, default_features
from fraud_detection.model.files import ONNX, PICKLE, REFERENCE
from fraud_detection.model.manifest import AmountScaling, Golden, Manifest, holdout_of
from fraud_detection.model.read import Model, load
from fraud_detection.model.write import promote, replace_file, write_version
from fraud_detection.settings import ApiSettings, JobSettings
from fraud_detection.store import Store, history, transfer
from fraud_detection.store.transfer import ImportedRows
from jobs.drift.reference import reference_bytes
from tests.support.command_line import Fraudctl, run
from tests.support.environment import variables
from tests.support.programs import skip_or_fail
from tests.support.project import REAL_DATA
from tests.support.service import api_process

# On a busy machine every example is slow, and no test asserts how long something takes.
hypothesis.settings.register_profile(
    "at any speed", hypothesis.settings.default, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("at any speed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long files first, so that no process still runs one of them when the others have ended."""
    items.sort(key=lambda item: item.get_closest_marker("long_file") is None)


@pytest.fixture(autouse=True)
def _what_a_program_sets_ends_with_the_test() -> Iterator[None]:
    """Restore the umask and the log, because programs set both and some tests run them in this process."""
    umask = os.umask(0o022)
    os.umask(umask)
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    os.umask(umask)
    root.handlers[:] = handlers  # a program sends the log to streams that are closed by now
    root.setLevel(level)


@pytest.fixture(scope="session")
def features() -> FeatureList:
    return default_features()


@pytest.fixture(scope="session")
def real_data() -> Path:
    if not REAL_DATA.parents[1].exists():  # it cannot be installed: if it is absent, synthetic transactions replace it
        pytest.skip("the sample of real transactions is not beside the project")
    return REAL_DATA


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """URL of the maintenance database of a private PostgreSQL server, or of POSTGRES_TEST_URL's."""
    if os.environ.get("POSTGRES_TEST_URL"):
        yield os.environ["POSTGRES_TEST_URL"]
        return
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    found = shutil.which("postgres", path=os.pathsep.join(map(str, folders)) or None)
    if found is None:
        skip_or_fail("no PostgreSQL server is installed (Debian: apt-get install postgresql) nor POSTGRES_TEST_URL set")
    with tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as folder:
        yield from _private_server(Path(str(found)).parent, Path(folder))


def _private_server(binaries: Path, folder: Path) -> Iterator[str]:
    user: str | None = None
    if os.geteuid() == 0:  # the server refuses to run as root
        user = "postgres"
        try:
            account = pwd.getpwnam(user)
        except KeyError:
            skip_or_fail("running as root, and there is no user `postgres` to start the server as")
        os.chown(folder, account.pw_uid, account.pw_gid)
    data = folder / "data"
    subprocess.run(
        [str(binaries / "initdb"), "-D", str(data), "-U", "tester", "-A", "trust", "-E", "UTF8", "--no-sync"],
        check=True, user=user, capture_output=True, cwd=folder,
    )  # fmt: skip
    options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c max_connections=50"
    server = [str(binaries / "pg_ctl"), "-D", str(data), "-w", "-l", str(folder / "log")]
    subprocess.run([*server, "-o", options, "start"], check=True, user=user, capture_output=True, cwd=folder)
    try:
        yield f"postgresql+psycopg://tester@/postgres?host={folder}"
    finally:
        subprocess.run([*server, "-m", "immediate", "stop"], check=True, user=user, capture_output=True, cwd=folder)


@pytest.fixture
def postgresql_database(postgresql: str) -> Iterator[str]:
    """URL of an empty PostgreSQL database of this test's own."""
    url = sa.make_url(postgresql)
    server = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    name = f"test_{os.urandom(6).hex()}"
    with server.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    yield url.set(database=name).render_as_string(hide_password=False)
    with server.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
    server.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str | Path:
    """Where a store of this test's own can be: an SQLite path, then a PostgreSQL URL."""
    if request.param == "sqlite":
        return tmp_path / "data" / "requests.db"
    url: str = request.getfixturevalue("postgresql_database")
    return url


@pytest.fixture
def store(location: str | Path, features: FeatureList) -> Iterator[Store]:
    """An empty store, on each database in turn."""
    opened = Store.create_or_migrate(location, features)
    yield opened
    opened.close()


@pytest.fixture
def sqlite_store(tmp_path: Path, features: FeatureList) -> Iterator[Store]:
    """An empty store on SQLite alone, for what does not depend on the database."""
    opened = Store.create_or_migrate(tmp_path / "data" / "requests.db", features)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def make_version(features: FeatureList) -> Callable[..., str]:
    """Make a version with a tiny real forest: make_version(models_dir, seed=0, **fields_of_the_manifest)."""

    def make(models_dir: Path, *, seed: int = 0, of: FeatureList = features, **fields: object) -> str:
        random = np.random.default_rng(seed)
        matrix = random.normal(size=(400, len(of)))
        is_fraud = matrix[:, 0] + 0.3 * random.normal(size=400) > 1.2
        forest = RandomForestClassifier(n_estimators=5, max_depth=4, random_state=seed).fit(matrix, is_fraud)
        onnx = to_onnx(
            forest, matrix[:1].astype(np.float32), options={"zipmap": False}, target_opset=17
        ).SerializeToString()
        golden = random.normal(size=(20, len(of)))
        scores = forest.predict_proba(golden.astype(np.float32))[:, 1]
        manifest = Manifest(
            created=f"2026-01-01 00:00:{seed % 60:02d}.000000",
            features=list(of.names),
            features_digest=of.digest,
            threshold=0.4,
            trained_on="labels",
            training_window=("2025-12-01 00:00:00.000000", "2025-12-31 00:00:00.000000"),
            golden=Golden(golden.tolist(), scores.tolist()),
            holdout=holdout_of(forest.predict_proba(matrix)[:, 1], 0.4),
            amount_scaling=AmountScaling(88.35, 250.12),
        )
        return write_version(
            models_dir,
            {ONNX: onnx, PICKLE: pickle.dumps(forest)},
            dataclasses.replace(manifest, **fields),  # type: ignore[arg-type]  # fields of the manifest by name
        )

    return make


@pytest.fixture
def models_dir(tmp_path: Path, make_version: Callable[..., str]) -> Path:
    """A models folder with one tiny current version."""
    folder = tmp_path / "models"
    promote(folder, make_version(folder), actor="test", reason="the first one")
    return folder


@pytest.fixture
def model(models_dir: Path, features: FeatureList) -> Model:
    """The tiny current model."""
    return load(models_dir / PICKLE, features)


@pytest.fixture
def reference(models_dir: Path, model: Model, features: FeatureList, tmp_path: Path) -> Matrix:
    """The reference of the current model: 500 rows."""
    matrix = np.random.default_rng(0).normal(size=(500, 29))
    elsewhere = Store.create_or_migrate(tmp_path / "elsewhere.db", features)
    with elsewhere.begin() as connection:
        rows = ImportedRows(Clock().tick()[1], ["2026-01-01 00:00:00.000000"] * 500, matrix, [None] * 500, [None] * 500)
        transfer.import_history(elsewhere, connection, [rows], reporter="r", received_at="2026-01-01 00:00:00.000000")
        stored = history.read(elsewhere, connection)
    elsewhere.close()
    replace_file(models_dir, model.version, REFERENCE, reference_bytes(stored, features, seed=0))
    return matrix


@pytest.fixture
def environment(location: str | Path, models_dir: Path, tmp_path: Path) -> dict[str, str]:
    """The environment variables of an installation in tmp_path, on each database in turn."""
    environment = variables(tmp_path, models_dir)
    if isinstance(location, str):
        environment["DATABASE_URL"] = location
    return environment


@pytest.fixture
def sqlite_environment(models_dir: Path, tmp_path: Path) -> dict[str, str]:
    """The environment variables of an installation in tmp_path, on SQLite alone."""
    return variables(tmp_path, models_dir)


@pytest.fixture
def api_settings(environment: dict[str, str]) -> ApiSettings:
    return ApiSettings.from_env(environment)


@pytest.fixture
def job_settings(environment: dict[str, str]) -> JobSettings:
    return JobSettings.from_env(environment)


@pytest.fixture
def running_api(sqlite_environment: dict[str, str], tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of an installation in tmp_path whose API runs, with the API_URL where it answers."""
    with api_process(sqlite_environment, tmp_path / "server.log") as url:
        yield {**sqlite_environment, "API_URL": url}


@pytest.fixture
def fraudctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fraudctl:
    """Run a command in this process: fraudctl("db", "check", env=…, exit_code=3); without exit_code it must be 0."""
    monkeypatch.chdir(tmp_path)  # where no .api_token lies
    for name in ("API_TOKEN", "API_TOKEN_FILE", "API_URL", "FEATURES_FILE", "LOG_LEVEL", "DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    return run

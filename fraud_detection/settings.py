"""Every environment variable: its name, type, default and meaning, checked when a program starts."""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from fraud_detection.exit_codes import ExitCode, ExpectedError


class BadSetting(ExpectedError):
    """A variable that is missing or wrong; the message names it, what was expected and, if no secret, its value."""

    exit_code = ExitCode.BAD_CONFIGURATION


def _text(value: str) -> str:
    return value


class Boolean:
    """Reads true or false."""

    expected = "true or false"

    def __call__(self, value: str) -> bool:
        """Return the value; raises ValueError saying what was expected, as every reader does."""
        if value.lower() not in {"true", "false"}:
            raise ValueError(self.expected)
        return value.lower() == "true"


@dataclass(frozen=True)
class Number:
    """Reads a number within bounds."""

    minimum: float
    maximum: float

    @property
    def expected(self) -> str:
        """What the message and the documents say."""
        return f"a number from {self.minimum:g} to {self.maximum:g}"

    def __call__(self, value: str) -> float:
        """Return the number."""
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not self.minimum <= number <= self.maximum:
            raise ValueError(self.expected)
        return number


@dataclass(frozen=True)
class Integer:
    """Reads a whole number within bounds."""

    minimum: int
    maximum: int

    @property
    def expected(self) -> str:
        """What the message and the documents say."""
        return f"a whole number from {self.minimum} to {self.maximum}"

    def __call__(self, value: str) -> int:
        """Return the number."""
        if not re.fullmatch(r"\d{1,10}", value) or not self.minimum <= int(value) <= self.maximum:
            raise ValueError(self.expected)
        return int(value)


class Choice:
    """Reads one of a few words."""

    def __init__(self, *words: str) -> None:
        self.words = words

    @property
    def expected(self) -> str:
        """What the message and the documents say."""
        return f"one of {', '.join(self.words)}"

    def __call__(self, value: str) -> str:
        """Return the word."""
        if value not in self.words:
            raise ValueError(self.expected)
        return value


def _url(value: str) -> str:
    if not re.fullmatch(r"https?://[^\s/]+(/\S*)?", value):
        raise ValueError("an address that starts with http:// or https://")
    return value.rstrip("/")


def _deployment_name(value: str) -> str:
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", value):
        raise ValueError("the name of a Deployment: small letters, digits and hyphens")
    return value


def _model_path(value: str) -> Path:
    if Path(value).name != "rf_model.pkl":
        raise ValueError("a path that ends in rf_model.pkl")
    return Path(value)


def _database_url(value: str) -> str:
    if not re.match(r"postgres(ql)?(\+psycopg)?://", value):
        raise ValueError("postgresql://user:password@host:port/database")
    try:
        import psycopg  # noqa: F401, PLC0415  an extra that SQLite does without
    except ImportError as error:
        raise BadSetting(
            "DATABASE_URL: the driver of PostgreSQL is not installed; "
            "install it with `python -m pip install 'psycopg[binary]'`"
        ) from error
    return "postgresql+psycopg://" + value.split("://", 1)[1]


_REQUIRED = object()


@dataclass(frozen=True)
class Variable:
    """What a person needs to know of one environment variable."""

    name: str
    meaning: str
    parse: Callable[[str], Any]
    default: str | None
    required: bool
    secret: bool


def _variable(
    name: str,
    parse: Callable[[str], Any],
    default: object,
    meaning: str,
    *,
    secret: bool = False,
    file_may_be_missing: bool = False,
) -> Any:
    return dataclasses.field(
        metadata={
            "name": name,
            "parse": parse,
            "default": default,
            "meaning": meaning,
            "secret": secret,
            "file_may_be_missing": file_may_be_missing,
        }
    )


@dataclass(frozen=True, kw_only=True)
class _Settings:
    """How a settings class reads itself from the environment."""

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Self:
        """Read and check every variable of this class.

        A secret may also come from the file that NAME_FILE names. An empty variable counts as absent.

        Raises BadSetting.
        """
        return cls(**{field.name: _read(field.metadata, environ) for field in dataclasses.fields(cls)})

    @classmethod
    def variables(cls) -> list[Variable]:
        """What this class reads, in order, for tables and checks."""
        return [
            Variable(
                name=field.metadata["name"],
                meaning=field.metadata["meaning"],
                parse=field.metadata["parse"],
                default=None if field.metadata["default"] in (_REQUIRED, None) else str(field.metadata["default"]),
                required=field.metadata["default"] is _REQUIRED,
                secret=field.metadata["secret"],
            )
            for field in dataclasses.fields(cls)
        ]


def _read(variable: Mapping[str, Any], environ: Mapping[str, str]) -> Any:
    name, secret = variable["name"], variable["secret"]
    value = environ.get(name, "")
    if secret and environ.get(f"{name}_FILE"):
        if value:
            raise BadSetting(f"{name} and {name}_FILE are both set; keep the one that counts")
        try:
            value = read_secret_file(f"{name}_FILE", Path(environ[f"{name}_FILE"]))
        except BadSetting as error:
            if not (variable["file_may_be_missing"] and isinstance(error.__cause__, FileNotFoundError)):
                raise
    if not value:
        if variable["default"] is _REQUIRED:
            raise BadSetting(f"{name} is not set; it is required: {variable['meaning']}")
        if variable["default"] is None:
            return None
        value = str(variable["default"])
    try:
        return variable["parse"](value)
    except ValueError as error:
        got = "a value that is kept secret" if secret else repr(value)
        raise BadSetting(f"{name}: expected {error}, got {got}") from None  # the cause may repeat a secret


def read_secret_file(variable: str, path: Path) -> str:
    """Return what the file that `variable` names holds, without a trailing newline.

    Raises BadSetting when it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BadSetting(f"{variable}: {path} cannot be read ({type(error).__name__})") from error


def checked_token(value: str) -> str:
    """Return a bearer token that can stand in a header; raises ValueError saying what was expected."""
    if not re.fullmatch(r"[\x21-\x7e]{1,512}", value):
        raise ValueError("1 to 512 visible ASCII characters without spaces")
    return value


@dataclass(frozen=True, kw_only=True)
class SharedSettings(_Settings):
    """What the API and the jobs must read alike."""

    fraud_threshold: float = _variable(
        "FRAUD_THRESHOLD",
        Number(0.001, 0.999),
        0.4,
        "lowest score at which a transaction is flagged; set it by how much work your analysts can do",
    )
    model_path: Path = _variable(
        "MODEL_PATH",
        _model_path,
        "models/rf_model.pkl",
        "path of the link to the model that serves; its folder holds all versions",
    )
    latest_db: Path = _variable(
        "LATEST_DB", Path, "data/requests.db", "SQLite file that the API writes and the jobs read"
    )
    database_url: str | None = _variable(
        "DATABASE_URL",
        _database_url,
        None,
        "URL of a PostgreSQL database that replaces both SQLite files: postgresql://user:password@host/database",
        secret=True,
    )
    features_file: Path | None = _variable(
        "FEATURES_FILE",
        Path,
        None,
        "JSON file with the feature list; without it, the 29 features of the public data set",
    )
    allow_network_filesystem: bool = _variable(
        "ALLOW_NETWORK_FILESYSTEM",
        Boolean(),
        "false",
        "permission to open SQLite on NFS, SMB or FUSE, where the file can become corrupt",
    )
    baseline_dir: Path = _variable(
        "BASELINE_DIR", Path, "baseline", "folder of the model version that the API installs if there is none yet"
    )
    rollout_mode: str = _variable(
        "ROLLOUT_MODE",
        Choice("reload", "restart", "none"),
        "reload",
        "rollout of a promoted model: the API loads it, the job restarts the API, or neither",
    )
    log_level: str = _variable(
        "LOG_LEVEL", Choice("DEBUG", "INFO", "WARNING", "ERROR"), "INFO", "lowest level that is logged"
    )
    log_format: str = _variable(
        "LOG_FORMAT",
        Choice("auto", "json", "text"),
        "auto",
        "format of the log; `auto` writes text on a terminal and JSON elsewhere",
    )

    @property
    def store_location(self) -> str | Path:
        """Where live decisions are stored: the PostgreSQL URL, or the SQLite file."""
        return self.database_url or self.latest_db

    @property
    def models_dir(self) -> Path:
        """The folder of all model versions."""
        return self.model_path.parent


@dataclass(frozen=True, kw_only=True)
class ApiSettings(SharedSettings):
    """What the API reads."""

    api_token: str = _variable(
        "API_TOKEN", checked_token, _REQUIRED, "bearer token of every endpoint that is not public", secret=True
    )
    api_token_file: Path | None = _variable(
        "API_TOKEN_FILE", Path, None, "file with this token; the API reads it again within 10 s when it changes"
    )
    api_token_previous: str | None = _variable(
        "API_TOKEN_PREVIOUS",
        checked_token,
        None,
        "second valid token, for a rotation without a 401",
        secret=True,
        file_may_be_missing=True,  # in a Kubernetes Secret: a key that is there only while tokens are rotated
    )
    api_token_previous_file: Path | None = _variable(
        "API_TOKEN_PREVIOUS_FILE",
        Path,
        None,
        "file with the second token; the API reads it again within 10 s when it appears, changes or disappears",
    )
    host: str = _variable("HOST", _text, "127.0.0.1", "address on which the API listens")
    port: int = _variable("PORT", Integer(1, 65535), 5000, "port of the API")
    probe_port: int = _variable("PROBE_PORT", Integer(1, 65535), 5001, "port of /livez and /readyz")
    max_in_flight: int = _variable(
        "MAX_IN_FLIGHT",
        Integer(1, 10_000),
        256,
        "maximum requests in flight; beyond it the API answers 503 with Retry-After",
    )
    retention_days: int = _variable(
        "RETENTION_DAYS",
        Integer(0, 36_500),
        0,
        "age in days after which the API deletes unlabelled decisions; 0 keeps everything",
    )


@dataclass(frozen=True, kw_only=True)
class JobSettings(SharedSettings):
    """What the jobs read."""

    train_db: Path = _variable(
        "TRAIN_DB",
        Path,
        "data/requests.db",
        "SQLite file with imported history, which training reads as well",
    )
    drift_result: Path = _variable(
        "DRIFT_RESULT", Path, "data/drift_result.json", "file to which the drift job writes its result"
    )
    drift_window_rows: int = _variable(
        "DRIFT_WINDOW_ROWS",
        Integer(100, 1_000_000),
        10_000,
        "rows in each of the two windows that drift compares; use about a day of your traffic",
    )
    drift_min_rows: int = _variable(
        "DRIFT_MIN_ROWS",
        Integer(50, 1_000_000),
        500,
        "minimum rows of a window; a smaller window is no evidence of drift",
    )
    label_maturity_days: float = _variable(
        "LABEL_MATURITY_DAYS",
        Number(0, 365),
        30,
        "age in days below which only confirmed frauds count; use the time that your chargebacks take",
    )
    negatives_by_maturity: bool = _variable(
        "NEGATIVES_BY_MATURITY",
        Boolean(),
        "false",
        "rule that mature, unflagged transactions without a fraud report are genuine; use it if reports are complete",
    )
    allow_derived_labels: bool = _variable(
        "ALLOW_DERIVED_LABELS",
        Boolean(),
        "false",
        "permission to train on derived labels if there are no true ones; the model then learns to agree with itself",
    )
    gate_min_frauds: int = _variable(
        "GATE_MIN_FRAUDS", Integer(5, 100_000), 50, "frauds that the hold-out needs before the gate judges a model"
    )
    gate_margin: float = _variable(
        "GATE_MARGIN",
        Number(0, 0.5),
        0.02,
        "maximum loss of average precision that a challenger may have (5 % bound)",
    )
    retrain_after_days: float = _variable(
        "RETRAIN_AFTER_DAYS",
        Number(0, 3650),
        30,
        "days after the last judgement until retraining is due without drift",
    )
    retrain_cooldown_days: float = _variable(
        "RETRAIN_COOLDOWN_DAYS",
        Number(0, 365),
        7,
        "days after a judgement during which drift starts no training",
    )
    mlflow_exper: str = _variable("MLFLOW_EXPER", _text, "FraudDetection", "name of the MLflow experiment")
    mlflow_reg: str = _variable("MLFLOW_REG", _text, "fraud-api", "name of the registered model in MLflow")
    mlflow_tracking_uri: str | None = _variable(
        "MLFLOW_TRACKING_URI",
        _text,
        None,
        "URL of an MLflow server; without it, the jobs use data/mlflow.db beside the database",
    )
    rollout_deployment: str | None = _variable(
        "ROLLOUT_DEPLOYMENT",
        _deployment_name,
        None,
        "name of the API's Deployment in Kubernetes, which a promotion restarts and watches; without it, no restart",
    )
    rollout_timeout_seconds: int = _variable(
        "ROLLOUT_TIMEOUT_SECONDS",
        Integer(1, 86_400),
        300,
        "seconds in which the new model must serve after a restart; then the job restores the previous version",
    )
    pushgateway_url: str | None = _variable(
        "PUSHGATEWAY_URL", _url, None, "URL of the Pushgateway to which the jobs report; without it, they do not"
    )

    @property
    def train_location(self) -> str | Path:
        """Where imported history is stored: the PostgreSQL URL, or the SQLite file."""
        return self.database_url or self.train_db

    @property
    def store_locations(self) -> list[str | Path]:
        """Every store that training reads: the PostgreSQL URL, or the SQLite files, each once."""
        if self.database_url:
            return [self.database_url]
        locations = {path.resolve(): path for path in (self.latest_db, self.train_db)}
        return list(locations.values())


@dataclass(frozen=True, kw_only=True)
class ClientSettings(_Settings):
    """What the commands that speak to a running API read."""

    api_url: str = _variable("API_URL", _url, "http://127.0.0.1:5000", "URL of the running API")
    api_token: str = _variable("API_TOKEN", checked_token, _REQUIRED, "bearer token of the API", secret=True)


@dataclass(frozen=True, kw_only=True)
class ClusterSettings(_Settings):
    """What Kubernetes sets in every pod."""

    host: str = _variable(
        "KUBERNETES_SERVICE_HOST", _text, _REQUIRED, "address of the Kubernetes API, which every pod has"
    )
    port: int = _variable("KUBERNETES_SERVICE_PORT", Integer(1, 65535), 443, "port of the Kubernetes API")

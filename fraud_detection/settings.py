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
        "a transaction that scores at least this is flagged: how much work your analysts can do",
    )
    model_path: Path = _variable(
        "MODEL_PATH",
        _model_path,
        "models/rf_model.pkl",
        "the link to the model in service; its folder holds all versions",
    )
    latest_db: Path = _variable(
        "LATEST_DB", Path, "data/requests.db", "the SQLite file that the API writes and drift reads"
    )
    database_url: str | None = _variable(
        "DATABASE_URL",
        _database_url,
        None,
        "PostgreSQL instead of both SQLite files: postgresql://user:password@host/database",
        secret=True,
    )
    features_file: Path | None = _variable(
        "FEATURES_FILE",
        Path,
        None,
        "JSON list of the features of a transaction; without it the public set's 29",
    )
    allow_network_filesystem: bool = _variable(
        "ALLOW_NETWORK_FILESYSTEM",
        Boolean(),
        "false",
        "open SQLite on NFS, SMB or FUSE all the same (it can corrupt)",
    )
    baseline_dir: Path = _variable(
        "BASELINE_DIR", Path, "baseline", "the model version that is installed when there is none yet"
    )
    rollout_mode: str = _variable(
        "ROLLOUT_MODE",
        Choice("reload", "restart", "none"),
        "reload",
        "how a promoted model comes into service: the API takes it up itself, is restarted, or neither",
    )
    log_level: str = _variable("LOG_LEVEL", Choice("DEBUG", "INFO", "WARNING", "ERROR"), "INFO", "how much is logged")
    log_format: str = _variable(
        "LOG_FORMAT",
        Choice("auto", "json", "text"),
        "auto",
        "`auto` writes text on a terminal and JSON elsewhere",
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
        "API_TOKEN", checked_token, _REQUIRED, "the bearer token of every endpoint that is not public", secret=True
    )
    api_token_file: Path | None = _variable(
        "API_TOKEN_FILE", Path, None, "the same from a file, read again within 10 s when it changes"
    )
    api_token_previous: str | None = _variable(
        "API_TOKEN_PREVIOUS",
        checked_token,
        None,
        "a second valid token, for a rotation without a 401",
        secret=True,
        file_may_be_missing=True,  # in a Kubernetes Secret: a key that is there only while tokens are rotated
    )
    api_token_previous_file: Path | None = _variable(
        "API_TOKEN_PREVIOUS_FILE",
        Path,
        None,
        "the same from a file, read again within 10 s when it appears, changes or goes",
    )
    host: str = _variable("HOST", _text, "127.0.0.1", "the address to listen on")
    port: int = _variable("PORT", Integer(1, 65535), 5000, "the port of the API")
    probe_port: int = _variable("PROBE_PORT", Integer(1, 65535), 5001, "the port of /livez and /readyz")
    max_in_flight: int = _variable(
        "MAX_IN_FLIGHT",
        Integer(1, 10_000),
        256,
        "requests inside at once; more are answered 503 with Retry-After",
    )
    retention_days: int = _variable(
        "RETENTION_DAYS",
        Integer(0, 36_500),
        0,
        "delete unlabelled decisions older than this many days; 0 keeps everything",
    )


@dataclass(frozen=True, kw_only=True)
class JobSettings(SharedSettings):
    """What the jobs read."""

    train_db: Path = _variable(
        "TRAIN_DB",
        Path,
        "data/requests.db",
        "the SQLite file with imported history that training reads as well",
    )
    drift_result: Path = _variable(
        "DRIFT_RESULT", Path, "data/drift_result.json", "where the drift job writes its result"
    )
    drift_window_rows: int = _variable(
        "DRIFT_WINDOW_ROWS",
        Integer(100, 1_000_000),
        10_000,
        "rows in each of the two windows that drift compares: about a day of your traffic",
    )
    drift_min_rows: int = _variable(
        "DRIFT_MIN_ROWS", Integer(50, 1_000_000), 500, "a window with fewer rows is no evidence"
    )
    label_maturity_days: float = _variable(
        "LABEL_MATURITY_DAYS",
        Number(0, 365),
        30,
        "a newer transaction counts only when it is a confirmed fraud: how long your chargebacks take",
    )
    negatives_by_maturity: bool = _variable(
        "NEGATIVES_BY_MATURITY",
        Boolean(),
        "false",
        "an unflagged transaction without a fraud report counts as genuine once mature (reports are complete)",
    )
    allow_derived_labels: bool = _variable(
        "ALLOW_DERIVED_LABELS",
        Boolean(),
        "false",
        "without true labels, train on the model's own decisions (it learns to agree with itself)",
    )
    gate_min_frauds: int = _variable(
        "GATE_MIN_FRAUDS", Integer(5, 100_000), 50, "frauds that the hold-out needs before a model is judged"
    )
    gate_margin: float = _variable(
        "GATE_MARGIN",
        Number(0, 0.5),
        0.02,
        "average precision that the new model may at worst lose (5 % bound)",
    )
    retrain_after_days: float = _variable(
        "RETRAIN_AFTER_DAYS",
        Number(0, 3650),
        30,
        "without drift, retrain this many days after the last judgement",
    )
    retrain_cooldown_days: float = _variable(
        "RETRAIN_COOLDOWN_DAYS",
        Number(0, 365),
        7,
        "after a judgement, drift starts no new training for this many days",
    )
    mlflow_exper: str = _variable("MLFLOW_EXPER", _text, "FraudDetection", "the MLflow experiment")
    mlflow_reg: str = _variable("MLFLOW_REG", _text, "fraud-api", "the registered model in MLflow")
    mlflow_tracking_uri: str | None = _variable(
        "MLFLOW_TRACKING_URI", _text, None, "an MLflow server; without it data/mlflow.db beside the database"
    )
    rollout_deployment: str | None = _variable(
        "ROLLOUT_DEPLOYMENT",
        _deployment_name,
        None,
        "in Kubernetes the API's Deployment, which a promotion restarts and watches; without it nothing is restarted",
    )
    rollout_timeout_seconds: int = _variable(
        "ROLLOUT_TIMEOUT_SECONDS",
        Integer(1, 86_400),
        300,
        "how long a restart may take until the new model serves; then the one before is restored",
    )
    pushgateway_url: str | None = _variable(
        "PUSHGATEWAY_URL", _url, None, "the Pushgateway that the jobs report to; without it they do not"
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

    api_url: str = _variable("API_URL", _url, "http://127.0.0.1:5000", "where the running API answers")
    api_token: str = _variable("API_TOKEN", checked_token, _REQUIRED, "the API's bearer token", secret=True)


@dataclass(frozen=True, kw_only=True)
class ClusterSettings(_Settings):
    """What Kubernetes tells every pod; nobody sets it by hand."""

    host: str = _variable("KUBERNETES_SERVICE_HOST", _text, _REQUIRED, "Kubernetes sets it in every pod")
    port: int = _variable("KUBERNETES_SERVICE_PORT", Integer(1, 65535), 443, "Kubernetes sets it in every pod")

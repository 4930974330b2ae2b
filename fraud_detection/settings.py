"""Every environment variable: its name, type, default and meaning, checked when a program starts."""

import ipaddress
import os
import re
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from fraud_detection.environment import (
    HOST_FORM,
    REQUIRED,
    BadSetting,
    Boolean,
    Choice,
    Integer,
    Number,
    Settings,
    can_be_looked_up,
    checked_token,
    new_token,
    text,
    tracking_uri,
    url,
    variable,
    without_password,
)


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
        address = sa.make_url(value)
        host = address.host or ""
        hosts = ",".join((host, *address.normalized_query.get("host", ()))).split(",")
    except (sa.exc.ArgumentError, ValueError):
        host, hosts = None, []
    if host is None or re.search(r"[@\s]", host):  # a message about this host would repeat a part of the password
        raise ValueError(
            "postgresql://user:password@host:port/database; in user and password write each of @ : / ? # % and space "
            "as % and its two hexadecimal digits"
        )
    if not all(name.startswith("/") or can_be_looked_up(name) for name in hosts):
        raise ValueError(f"postgresql://user:password@host:port/database, with {HOST_FORM}")
    try:
        import psycopg  # noqa: F401, PLC0415  an extra that SQLite does without
    except ImportError as error:
        raise BadSetting(
            "DATABASE_URL: the driver of PostgreSQL is not installed; "
            "install it with `python -m pip install 'psycopg[binary]'`"
        ) from error
    return "postgresql+psycopg://" + value.split("://", 1)[1]


def _networks(value: str) -> str:
    parts = [part.strip() for part in value.split(",")]
    try:
        return ",".join(str(ipaddress.ip_network(part)) for part in parts)
    except ValueError as error:
        raise ValueError("addresses or networks, separated by commas, such as 10.0.0.7, 192.168.0.0/16") from error


@dataclass(frozen=True, kw_only=True)
class SharedSettings(Settings):
    """What the API and the jobs must read alike."""

    fraud_threshold: float = variable(
        "FRAUD_THRESHOLD",
        Number(0.001, 0.999),
        0.4,
        "lowest score at which a transaction is flagged; set it by how much work your analysts can do",
    )
    model_path: Path = variable(
        "MODEL_PATH",
        _model_path,
        "models/rf_model.pkl",
        "path of the link to the model that serves; its folder holds all versions",
    )
    latest_db: Path = variable(
        "LATEST_DB", Path, "data/requests.db", "SQLite file that the API writes and the jobs read"
    )
    database_url: str | None = variable(
        "DATABASE_URL",
        _database_url,
        None,
        "URL of a PostgreSQL database that replaces both SQLite files: postgresql://user:password@host/database",
        secret=True,
    )
    features_file: Path | None = variable(
        "FEATURES_FILE",
        Path,
        None,
        "JSON file with the feature list; without it, the list that the SQLite store was made with, "
        "or the 29 features of the public data set",
    )
    allow_network_filesystem: bool = variable(
        "ALLOW_NETWORK_FILESYSTEM",
        Boolean(),
        "false",
        "permission to open SQLite on NFS, SMB or FUSE, where the file can become corrupt",
    )
    baseline_dir: Path = variable(
        "BASELINE_DIR", Path, "baseline", "folder of the model version that the API installs if there is none yet"
    )
    rollout_mode: str = variable(
        "ROLLOUT_MODE",
        Choice("reload", "restart", "none"),
        "reload",
        "rollout of a promoted model: the API loads it, the job restarts the API, or neither",
    )
    log_level: str = variable(
        "LOG_LEVEL", Choice("DEBUG", "INFO", "WARNING", "ERROR"), "INFO", "lowest level that is logged"
    )
    log_format: str = variable(
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

    api_token: str = variable(
        "API_TOKEN", checked_token, REQUIRED, "bearer token that opens every endpoint", secret=True
    )
    api_token_file: Path | None = variable(
        "API_TOKEN_FILE", Path, None, "file with this token; the API reads it again within 10 s when it changes"
    )
    api_token_previous: str | None = variable(
        "API_TOKEN_PREVIOUS",
        checked_token,
        None,
        "second valid token, for a rotation without a 401",
        secret=True,
        file_may_be_missing=True,  # in a Kubernetes Secret: a key that is there only while tokens are rotated
    )
    api_token_previous_file: Path | None = variable(
        "API_TOKEN_PREVIOUS_FILE",
        Path,
        None,
        "file with the second token; the API reads it again within 10 s when it appears, changes or disappears",
    )
    api_tokens_file: Path | None = variable(
        "API_TOKENS_FILE",
        Path,
        None,
        "file of named tokens with scopes, which `fraudctl token` writes; the API reads it again within 10 s",
    )
    metrics_token: str | None = variable(
        "METRICS_TOKEN",
        new_token,
        None,
        "bearer token that opens GET /metrics and GET /model alone; give it to Prometheus",
        secret=True,
        file_may_be_missing=True,  # in a Kubernetes Secret: a key that older installations lack
    )
    metrics_token_file: Path | None = variable(
        "METRICS_TOKEN_FILE",
        Path,
        None,
        "file with this token; the API reads it again within 10 s when it appears, changes or disappears",
    )
    host: str = variable(
        "HOST", text, "127.0.0.1", "address on which the API listens; `::` is every address, of IPv6 and of IPv4"
    )
    port: int = variable("PORT", Integer(1, 65535), 5000, "port of the API")
    probe_port: int = variable("PROBE_PORT", Integer(1, 65535), 5001, "port of /livez and /readyz")
    trusted_proxies: str | None = variable(
        "TRUSTED_PROXIES",
        _networks,
        None,
        "addresses or networks of the proxies whose X-Forwarded-Proto and SCRIPT_NAME count; without it, from none",
    )
    access_log: str = variable(
        "ACCESS_LOG",
        Choice("auto", "all", "errors", "none"),
        "auto",
        "requests that get a line in the log: `errors` are all but 200; `auto` is `all` in text and `errors` in JSON",
    )
    rate_limit_per_second: int = variable(
        "RATE_LIMIT_PER_SECOND",
        Integer(0, 1_000_000),
        0,
        "requests per second that the tokens of one name may send; beyond it the API replies 429; 0 is no limit",
    )
    max_in_flight: int = variable(
        "MAX_IN_FLIGHT",
        Integer(1, 10_000),
        256,
        "maximum requests in flight; beyond it the API replies 503 with Retry-After",
    )
    retention_days: int = variable(
        "RETENTION_DAYS",
        Integer(0, 36_500),
        0,
        "age in days after which the API deletes unlabelled decisions; 0 keeps everything",
    )


@dataclass(frozen=True, kw_only=True)
class JobSettings(SharedSettings):
    """What the jobs read."""

    train_db: Path = variable(
        "TRAIN_DB",
        Path,
        "data/requests.db",
        "SQLite file with imported history, which training reads as well",
    )
    drift_result: Path = variable(
        "DRIFT_RESULT", Path, "data/drift_result.json", "file to which the drift job writes its result"
    )
    drift_window_rows: int = variable(
        "DRIFT_WINDOW_ROWS",
        Integer(100, 1_000_000),
        10_000,
        "rows in each of the two windows that drift compares; use about a day of your traffic",
    )
    drift_min_rows: int = variable(
        "DRIFT_MIN_ROWS",
        Integer(50, 1_000_000),
        500,
        "minimum rows of a window; a smaller window is no evidence of drift",
    )
    label_maturity_days: float = variable(
        "LABEL_MATURITY_DAYS",
        Number(0, 365),
        30,
        "age in days below which only confirmed frauds count; use the time that your chargebacks take",
    )
    negatives_by_maturity: bool = variable(
        "NEGATIVES_BY_MATURITY",
        Boolean(),
        "false",
        "rule that mature, unflagged transactions without a fraud report are genuine; use it if reports are complete",
    )
    allow_derived_labels: bool = variable(
        "ALLOW_DERIVED_LABELS",
        Boolean(),
        "false",
        "permission to train on derived labels if there are no true ones; the model then learns to agree with itself",
    )
    gate_min_frauds: int = variable(
        "GATE_MIN_FRAUDS", Integer(5, 100_000), 50, "frauds that the hold-out needs before the gate judges a model"
    )
    gate_margin: float = variable(
        "GATE_MARGIN",
        Number(0, 0.5),
        0.02,
        "maximum loss of average precision that a challenger may have "
        "(5 % bound; against the synthetic baseline, the mean)",
    )
    retrain_after_days: float = variable(
        "RETRAIN_AFTER_DAYS",
        Number(0, 3650),
        30,
        "days after the last judgement until retraining is due without drift",
    )
    retrain_cooldown_days: float = variable(
        "RETRAIN_COOLDOWN_DAYS",
        Number(0, 365),
        7,
        "days after a judgement during which drift starts no training",
    )
    mlflow_exper: str = variable("MLFLOW_EXPER", text, "FraudDetection", "name of the MLflow experiment")
    mlflow_reg: str = variable("MLFLOW_REG", text, "fraud-api", "name of the registered model in MLflow")
    mlflow_tracking_uri: str | None = variable(
        "MLFLOW_TRACKING_URI",
        tracking_uri,
        None,
        "URL of an MLflow server; without it, the jobs use data/mlflow.db beside the database",
    )
    rollout_deployment: str | None = variable(
        "ROLLOUT_DEPLOYMENT",
        _deployment_name,
        None,
        "name of the API's Deployment in Kubernetes, which a promotion restarts and watches; without it, no restart",
    )
    rollout_timeout_seconds: int = variable(
        "ROLLOUT_TIMEOUT_SECONDS",
        Integer(1, 86_400),
        300,
        "seconds in which the new model must serve after a restart; then the job restores the previous version",
    )
    backup_key_file: Path | None = variable(
        "BACKUP_KEY_FILE",
        Path,
        None,
        "file with the keys of encrypted backups, the newest last; without it, backups are not encrypted",
    )
    pushgateway_url: str | None = variable(
        "PUSHGATEWAY_URL", url, None, "URL of the Pushgateway to which the jobs report; without it, they do not"
    )

    @property
    def retrain_result(self) -> Path:
        """The file to which a retraining writes how it ended, beside that of the drift job."""
        return self.drift_result.with_name("retrain_result.json")

    @property
    def train_location(self) -> str | Path:
        """Where imported history is stored: the PostgreSQL URL, or the SQLite file."""
        return self.database_url or self.train_db

    @property
    def store_locations(self) -> list[str | Path]:
        """Every store that training reads: the PostgreSQL URL, or the SQLite files, each once."""
        if self.database_url:
            return [self.database_url]
        # Path.resolve() raises RuntimeError for a link that leads to itself, which opening it refuses with a sentence.
        locations = {os.path.realpath(path): path for path in (self.latest_db, self.train_db)}
        return list(locations.values())


@dataclass(frozen=True, kw_only=True)
class ClientSettings(Settings):
    """What the commands that speak to a running API read."""

    api_url: str = variable(
        "API_URL", url, "http://127.0.0.1:5000", "URL of the running API; a promotion asks the API only if this is set"
    )
    api_token: str = variable("API_TOKEN", checked_token, REQUIRED, "bearer token of the API", secret=True)

    @property
    def address(self) -> str:
        """The URL of the API for messages."""
        return without_password(self.api_url)


@dataclass(frozen=True, kw_only=True)
class ClusterSettings(Settings):
    """What Kubernetes sets in every pod."""

    host: str = variable(
        "KUBERNETES_SERVICE_HOST", text, REQUIRED, "address of the Kubernetes API, which every pod has"
    )
    port: int = variable("KUBERNETES_SERVICE_PORT", Integer(1, 65535), 443, "port of the Kubernetes API")

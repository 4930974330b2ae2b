"""Each container gets exactly the variables that its program reads."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from fraud_detection.features import default_features, load_features
from fraud_detection.settings import ApiSettings, ClientSettings, JobSettings, SharedSettings
from generate.variables import DECIDED_BY_THE_PLACE, chart_name
from jobs.exchange.feature_file import to_json
from tests.chart.helm import Helm, Manifest, Pod, named, pods

THREADS = {"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "LOKY_MAX_CPU_COUNT"}
SECRETS = {"API_TOKEN", "API_TOKEN_PREVIOUS", "METRICS_TOKEN", "BACKUP_KEY", "DATABASE_URL"}
FILES = {"API_TOKENS_FILE", "BACKUP_KEY_FILE", "FEATURES_FILE"}
"""Variables that are the path of a file, where others are its content."""
NAME = "fraud-fraud-detection"
EVERYTHING = {
    "auth": {"existingSecret": "tokens"},
    "features": [{"name": "amount", "minimum": 0, "maximum": 1e9, "description": "in <euro>"}, {"name": "age_days"}],
    "config": {"mlflowTrackingUri": "http://mlflow:5000", "trustedProxies": "10.0.0.7, 192.168.0.0/16"},
    "jobs": {"backup": {"enabled": True, "existingClaim": "backups", "encryption": {"existingSecret": "backup-key"}}},
}
POSTGRESQL = {"database": {"mode": "postgresql", "existingSecret": "db"}}


def environment(container: Manifest, manifests: list[Manifest]) -> dict[str, str]:
    """Return what the program of a container finds in its environment, ConfigMaps included."""
    found: dict[str, str] = {}
    for source in container.get("envFrom", []):
        found |= named(manifests, "ConfigMap", source["configMapRef"]["name"])["data"]
    return found | {variable["name"]: variable["value"] for variable in container["env"]}


def containers_of(manifests: list[Manifest]) -> dict[str, Manifest]:
    """Return our containers by name: api, bootstrap, detect-drift, retrain, …"""
    found = {c["name"]: c for pod in pods(manifests) for c in pod.containers}
    assert len(found) == sum(len(pod.containers) for pod in pods(manifests)), "two containers of one name"
    return found


@pytest.mark.parametrize("values", [EVERYTHING, EVERYTHING | POSTGRESQL], ids=["sqlite", "postgresql"])
@pytest.mark.parametrize(
    ("name", "reads"),
    [
        ("bootstrap", [ApiSettings, SharedSettings]),  # it has the same ConfigMap as the API
        ("api", [ApiSettings]),
        ("detect-drift", [JobSettings]),
        ("retrain", [JobSettings, ClientSettings]),
        ("backup", [JobSettings]),
        ("fraudctl", [JobSettings]),
        ("smoke", [ClientSettings]),
    ],
)
def test_a_container_gets_the_variables_that_its_program_reads(
    helm: Helm, values: dict[str, Any], name: str, reads: list[type[SharedSettings]], tmp_path: Path
) -> None:
    manifests = helm.render(values)
    told = environment(containers_of(manifests)[name], manifests)
    variables = {variable.name: variable for settings in reads for variable in settings.variables()}
    for variable in [name for name in told if name.endswith("_FILE") and name not in FILES]:
        (tmp_path / variable).write_text(
            "postgresql://u:p@h/d" if variable == "DATABASE_URL_FILE" else "a-token-for-this-test"
        )
        told[variable] = str(tmp_path / variable)

    reads[-1].from_env(told)  # accepts every value
    assert {name if name in FILES else name.removesuffix("_FILE") for name in told} - set(variables) <= THREADS


def test_every_variable_is_a_key_of_a_configmap_save_secrets(helm: Helm) -> None:
    optional = {
        chart_name(variable): "set"
        for settings in (ApiSettings, JobSettings)
        for variable in settings.variables()
        if variable.default is None and variable.name not in DECIDED_BY_THE_PLACE
    }
    manifests = helm.render(EVERYTHING | {"config": optional})
    by_file = SECRETS | {f"{name}_FILE" for name in SECRETS} | {"API_TOKENS_FILE"}

    for suffix, settings in (("api", ApiSettings), ("jobs", JobSettings)):
        keys = set(named(manifests, "ConfigMap", f"{NAME}-{suffix}")["data"])
        assert keys - {"API_URL"} == {variable.name for variable in settings.variables()} - by_file


def test_a_default_of_the_chart_is_the_default_of_the_program(helm: Helm) -> None:
    manifests = helm.render()
    paths = {"MODEL_PATH", "LATEST_DB", "TRAIN_DB", "DRIFT_RESULT", "BASELINE_DIR", "HOST", "ROLLOUT_MODE"}

    for suffix, settings in (("api", ApiSettings), ("jobs", JobSettings)):
        told = named(manifests, "ConfigMap", f"{NAME}-{suffix}")["data"]
        for variable in settings.variables():
            if variable.name in told and variable.default is not None and variable.name not in paths:
                assert told[variable.name] == variable.default, variable.name


def test_large_numbers_arrive_as_digits(helm: Helm) -> None:
    """Helm reads numbers as floating point, which prints a million as 1e+06."""
    manifests = helm.render({"config": {"driftWindowRows": 1000000, "driftMinRows": 1000000, "gateMinFrauds": 100000}})
    told = named(manifests, "ConfigMap", f"{NAME}-jobs")["data"]

    assert (told["DRIFT_WINDOW_ROWS"], told["DRIFT_MIN_ROWS"], told["GATE_MIN_FRAUDS"]) == (
        "1000000",
        "1000000",
        "100000",
    )


def test_features_arrive_as_the_file_that_both_images_read(helm: Helm, tmp_path: Path) -> None:
    manifests = helm.render(EVERYTHING)
    file = tmp_path / "features.json"
    file.write_text(named(manifests, "ConfigMap", f"{NAME}-features")["data"]["features.json"])

    assert [(f.name, f.minimum, f.maximum, f.description) for f in load_features(file).features] == [
        ("amount", 0, 1e9, "in <euro>"), ("age_days", -1e9, 1e9, ""),
    ]  # fmt: skip
    for name in ("bootstrap", "api", "detect-drift", "retrain", "fraudctl"):
        container = containers_of(manifests)[name]
        mounts = [mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "features"]
        assert environment(container, manifests)["FEATURES_FILE"] == f"{mounts[0]}/features.json"


def test_a_list_as_a_command_prints_it_arrives_unchanged(helm: Helm, tmp_path: Path) -> None:
    printed = json.loads(to_json(default_features()))

    manifests = helm.render({"features": printed["features"]})

    file = tmp_path / "features.json"
    file.write_text(named(manifests, "ConfigMap", f"{NAME}-features")["data"]["features.json"])
    assert load_features(file) == default_features()


def test_only_the_api_the_retraining_and_the_tests_get_the_token(helm: Helm) -> None:
    manifests = helm.render(EVERYTHING | {"pushgateway": {"enabled": True}})
    told = {pod.owner for pod in pods(manifests) if mentions_token(pod)}

    assert told == {
        f"Deployment {NAME}-api",
        f"CronJob {NAME}-retrain",
        *{pod.owner for pod in pods(manifests) if pod.owner.startswith("Pod ")},
    }
    assert not any("API_TOKEN" in name for name in containers_of(manifests)["bootstrap"]["env"])


def test_only_the_backup_and_fraudctl_get_the_keys_of_encrypted_backups(helm: Helm) -> None:
    values: dict[str, Any] = {"jobs": {"backup": {"encryption": {"existingSecret": "backup-key", "fileKey": "age"}}}}
    enabled = {"jobs": {"backup": {"enabled": True, "existingClaim": "backups", **values["jobs"]["backup"]}}}

    assert jobs_with_backup_key(helm.render(enabled)) == {"backup", "fraudctl"}
    assert jobs_with_backup_key(helm.render(values)) == {"fraudctl"}  # which restores what another release backed up
    assert jobs_with_backup_key(helm.render()) == set()
    assert jobs_with_backup_key(helm.render({"jobs": {"backup": {"encryption": None}}})) == set()  # --reuse-values


def jobs_with_backup_key(manifests: list[Manifest]) -> set[str]:
    """Return the containers that get the keys, after a look at the way that they take."""
    found = {c["name"]: (c, pod) for pod in pods(manifests) for c in pod.containers if "backup-key" in repr(pod.spec)}
    for container, pod in found.values():
        path = Path(environment(container, manifests)["BACKUP_KEY_FILE"])
        [mount] = [mount for mount in container["volumeMounts"] if mount["mountPath"] == str(path.parent)]
        [volume] = [volume for volume in pod.spec["volumes"] if volume["name"] == mount["name"]]
        assert mount["readOnly"] is True
        assert volume["secret"]["secretName"] == "backup-key"
        assert volume["secret"]["items"] == [{"key": "age", "path": path.name}]
    return set(found)


def mentions_token(pod: Pod) -> bool:
    return bool(re.search(r"'tokens'|API_TOKEN", repr(pod.spec)))


def test_a_rotated_token_arrives_without_a_restart(helm: Helm) -> None:
    """A mount with subPath, or a variable, would keep its old value."""
    manifests = helm.render(EVERYTHING)
    for name in ("api", "retrain", "smoke"):
        container = containers_of(manifests)[name]
        folder = Path(environment(container, manifests)["API_TOKEN_FILE"]).parent
        [mount] = [mount for mount in container["volumeMounts"] if mount["mountPath"] == str(folder)]
        assert "subPath" not in mount
        assert mount["readOnly"] is True


def test_the_file_of_named_tokens_comes_from_its_secret(helm: Helm) -> None:
    manifests = helm.render({"auth": {"existingSecret": "mine", "tokensSecret": "named", "tokensKey": "a-file"}})
    told = environment(containers_of(manifests)["api"], manifests)
    [deployment] = [pod for pod in pods(manifests) if pod.owner == f"Deployment {NAME}-api"]
    [volume] = [volume for volume in deployment.spec["volumes"] if volume["name"] == "auth"]
    without = helm.render()

    assert told["API_TOKENS_FILE"] == "/run/secrets/fraud-detection/auth/tokens"
    assert "METRICS_TOKEN_FILE" not in told
    assert {"secret": {"name": "named", "items": [{"key": "a-file", "path": "tokens"}]}} in volume["projected"][
        "sources"
    ]
    assert "API_TOKENS_FILE" not in environment(containers_of(without)["api"], without)


def test_the_address_of_the_api_is_its_service(helm: Helm) -> None:
    manifests = helm.render({"api": {"service": {"port": 8080}}})

    assert named(manifests, "Service", f"{NAME}-api")["spec"]["ports"][0]["port"] == 8080
    for name in ("retrain", "smoke"):
        assert environment(containers_of(manifests)[name], manifests)["API_URL"] == f"http://{NAME}-api:8080"


@pytest.mark.parametrize("mode", ["restart", "reload", "none"])
def test_programs_know_the_mode_of_a_rollout(helm: Helm, mode: str) -> None:
    manifests = helm.render(
        {"jobs": {"retrain": {"rollout": {"mode": mode, "timeoutSeconds": 77}}}, "api": {"progressDeadlineSeconds": 70}}
    )
    told = environment(containers_of(manifests)["retrain"], manifests)

    assert told["ROLLOUT_MODE"] == mode
    assert told["ROLLOUT_TIMEOUT_SECONDS"] == "77"
    assert told.get("ROLLOUT_DEPLOYMENT") == (f"{NAME}-api" if mode == "restart" else None)
    assert environment(containers_of(manifests)["api"], manifests)["ROLLOUT_MODE"] == mode
    assert environment(containers_of(manifests)["fraudctl"], manifests)["ROLLOUT_MODE"] == "none"


@pytest.mark.parametrize(
    ("values", "address"),
    [
        ({}, f"http://{NAME}-pushgateway:9091"),
        ({"enabled": False, "externalUrl": "https://push.example"}, "https://push.example"),
        ({"enabled": False}, None),
    ],
)
def test_jobs_report_to_a_pushgateway_that_is_there(helm: Helm, values: dict[str, Any], address: str | None) -> None:
    manifests = helm.render({"pushgateway": values})

    assert named(manifests, "ConfigMap", f"{NAME}-jobs")["data"].get("PUSHGATEWAY_URL") == address
    assert (f"{NAME}-pushgateway" in {m["metadata"]["name"] for m in manifests if m["kind"] == "Service"}) is not (
        address != f"http://{NAME}-pushgateway:9091"
    )

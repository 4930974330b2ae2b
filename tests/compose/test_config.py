"""What compose.yaml says, as Docker Compose understands it."""

import json
import re
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml

from fraud_detection.settings import ApiSettings, ClientSettings, JobSettings
from tests.compose.project import Project, write_env
from tests.support.project import ROOT

JOBS = ("drift", "retrain", "fraudctl")
CHART = ROOT / "charts" / "fraud-detection"
WITH_TOKEN = {"fraud_api", "retrain", "fraudctl", "prometheus"}

Services = dict[str, dict[str, Any]]


@pytest.fixture
def config(project: Project) -> dict[str, Any]:
    """The configuration with all profiles; Compose checks it against its own schema."""
    document: dict[str, Any] = json.loads(project.compose("--profile", "*", "config", "--format", "json"))
    return document


@pytest.fixture
def services(config: dict[str, Any]) -> Services:
    found: Services = config["services"]
    assert {"fraud_api", "prometheus", *JOBS} < set(found)
    return found


def mounts(service: dict[str, Any]) -> dict[str, str]:
    """Return each volume or file by its path in the container."""
    return {mount["target"]: mount.get("source", "") for mount in service["volumes"]}


def test_refuses_to_start_without_a_token(docker_compose: None, tmp_path: Path) -> None:
    ended = Project("fraud-only-read", write_env(tmp_path / "env", {})).try_to("up")

    assert ended.returncode != 0
    assert "API_TOKEN_FILE is missing a value: the file with the token of the API" in ended.stderr
    assert "Copy .env.example to .env and create the file as described there" in ended.stderr


def test_the_documented_command_makes_a_token_that_only_its_owner_and_the_containers_can_read(token_file: Path) -> None:
    assert re.fullmatch("[0-9a-f]{64}\n", token_file.read_text())
    assert stat.S_IMODE(token_file.stat().st_mode) == 0o644
    assert stat.S_IMODE(token_file.parent.stat().st_mode) == 0o700


def test_git_keeps_out_what_is_secret() -> None:
    assert {"/.env", "/secrets/"} <= set((ROOT / ".gitignore").read_text().splitlines())


def test_servers_start_with_up_and_jobs_on_demand(services: Services) -> None:
    assert {name for name, service in services.items() if "profiles" not in service} == {
        "fraud_api",
        "prometheus",
        "pushgateway",
        "grafana",
    }
    assert {name: service["profiles"] for name, service in services.items() if "profiles" in service} == {
        "drift": ["jobs"],
        "retrain": ["jobs"],
        "fraudctl": ["jobs"],
        "mlflow": ["mlflow"],
    }


def test_every_container_is_locked_down(services: Services) -> None:
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert re.fullmatch(r"[1-9]\d*:\d+", service["user"]), name
        assert int(service["mem_limit"]) <= 2 << 30, name
        assert service["pids_limit"] <= 256, name
        assert service["logging"]["driver"] == "local", name
        assert not {"privileged", "network_mode", "pid", "ipc", "devices", "cap_add"} & set(service), name


def test_ours_run_as_the_user_of_the_images(services: Services) -> None:
    assert {services[name]["user"] for name in ("fraud_api", *JOBS)} == {"10001:0"}


def test_servers_restart_and_jobs_do_not(services: Services) -> None:
    for name, service in services.items():
        assert service.get("restart") == (None if name in JOBS else "unless-stopped"), name


def test_health_is_asked_without_a_shell(services: Services) -> None:
    for name in ("prometheus", "pushgateway", "grafana", "mlflow"):
        assert services[name]["healthcheck"]["test"][0] == "CMD", name
    assert 'CMD ["python"' in (ROOT / "Dockerfile.api").read_text().partition("HEALTHCHECK")[2]


def test_other_images_have_a_version(services: Services) -> None:
    for name in ("prometheus", "pushgateway", "grafana", "mlflow"):
        assert re.search(r":v?\d+\.\d+\.\d+$", services[name]["image"]), name


def test_mlflow_is_the_version_that_the_jobs_speak(services: Services) -> None:
    locked = re.search(r"^mlflow-skinny==(\S+)", (ROOT / "requirements" / "jobs.txt").read_text(), re.MULTILINE)

    assert locked
    assert services["mlflow"]["image"].endswith(f":v{locked[1]}")


def test_the_pushgateway_is_the_chart_s(services: Services) -> None:
    chart = yaml.safe_load((CHART / "values.yaml").read_text())["pushgateway"]["image"]

    assert services["pushgateway"]["image"] == f"{chart['registry']}/{chart['repository']}:{chart['tag']}"


def test_this_machine_alone_reaches_the_ports(services: Services) -> None:
    published = {
        name: (port["host_ip"], port["published"], port["target"])
        for name, service in services.items()
        for port in service.get("ports", ())
    }

    assert published == {
        "fraud_api": ("127.0.0.1", "5000", 5000),
        "prometheus": ("127.0.0.1", "9090", 9090),
        "pushgateway": ("127.0.0.1", "9091", 9091),
        "grafana": ("127.0.0.1", "3000", 3000),
        "mlflow": ("127.0.0.1", "5050", 5000),
    }


def test_the_token_comes_as_a_file_and_only_to_containers_that_need_it(
    config: dict[str, Any], token_file: Path
) -> None:
    services: Services = config["services"]

    assert {name for name, service in services.items() if service.get("secrets")} == WITH_TOKEN
    assert config["secrets"]["api_token"]["file"] == str(token_file)
    assert token_file.read_text().strip() not in json.dumps(config)
    for name, service in services.items():
        secret = {key for key in service.get("environment", {}) if re.search("TOKEN|PASSWORD|SECRET|DATABASE_URL", key)}
        assert secret <= {"API_TOKEN_FILE", "METRICS_TOKEN_FILE"}, name


def test_prometheus_gets_a_token_of_its_own_if_there_is_one(project: Project, tmp_path: Path) -> None:
    def read() -> tuple[set[str], str, str, str]:
        config = json.loads(project.compose("config", "--format", "json"))
        prometheus, api = config["services"]["prometheus"], config["services"]["fraud_api"]
        given = {each["source"] for each in prometheus["secrets"]}
        files = {name: secret["file"] for name, secret in config["secrets"].items()}
        return given, files["metrics_token"], files["api_token"], api["environment"]["METRICS_TOKEN_FILE"]

    given, before, of_the_api, unset = read()
    with project.env_file.open("a") as file:
        file.write(f"METRICS_TOKEN_FILE={tmp_path / 'metrics_token'}\n")
    _, own, _, named = read()

    assert given == {"metrics_token"}
    assert (before, unset) == (of_the_api, "")
    assert (own, named) == (str(tmp_path / "metrics_token"), "/run/secrets/metrics_token")


def test_the_keys_of_encrypted_backups_come_as_a_file_and_only_to_fraudctl(project: Project, tmp_path: Path) -> None:
    def read() -> tuple[dict[str, set[str]], str, str]:
        config = json.loads(project.compose("--profile", "*", "config", "--format", "json"))
        given = {
            name: {each["source"] for each in service.get("secrets", ())}
            for name, service in config["services"].items()
        }
        variable = config["services"]["fraudctl"]["environment"]["BACKUP_KEY_FILE"]
        return given, config["secrets"]["backup_key"]["file"], variable

    given, without_key, unset = read()
    (tmp_path / "backup.key").touch()
    with project.env_file.open("a") as file:
        file.write(f"BACKUP_KEY_FILE={tmp_path / 'backup.key'}\n")

    assert (without_key, unset) == ("/dev/null", "")
    assert read() == (given, str(tmp_path / "backup.key"), "/run/secrets/backup_key")
    assert {name for name, secrets in given.items() if "backup_key" in secrets} == {"fraudctl"}


def test_volumes_lie_where_the_images_expect_them(config: dict[str, Any]) -> None:
    services: Services = config["services"]

    assert set(config["volumes"]) == {
        "fraud-data",
        "fraud-reference",
        "prometheus-data",
        "pushgateway-data",
        "mlflow-data",
    }
    for name in ("fraud_api", *JOBS):
        found = mounts(services[name])
        assert (found["/app/data"], found["/app/models"]) == ("fraud-data", "fraud-reference"), name
        assert services[name]["environment"]["MODEL_PATH"] == "/app/models/rf_model.pkl", name
    assert mounts(services["prometheus"])["/prometheus"] == "prometheus-data"
    assert mounts(services["pushgateway"])["/pushgateway"] == "pushgateway-data"


def names(settings: type[ApiSettings | JobSettings | ClientSettings]) -> set[str]:
    return {variable.name for variable in settings.variables()}


DATABASE = {"DATABASE_URL"}  # a secret; many shells set it for another program
IMAGE_SAYS = {"LATEST_DB", "TRAIN_DB", "DRIFT_RESULT", "HOST", "PORT", "PROBE_PORT"}
TOKENS = {"API_TOKEN", "API_TOKEN_PREVIOUS", "API_TOKEN_PREVIOUS_FILE", "METRICS_TOKEN", "API_TOKENS_FILE"}
BACKUPS = {"BACKUP_KEY_FILE"}  # for those who back up and restore
NO_FILE = {"FEATURES_FILE", "BASELINE_DIR"}  # no file of the machine is mounted, so they could name none
KUBERNETES = {"ROLLOUT_DEPLOYMENT", "ROLLOUT_TIMEOUT_SECONDS"}


@pytest.mark.parametrize(
    ("service", "expected"),
    [
        ("fraud_api", names(ApiSettings)),
        ("drift", names(JobSettings) - BACKUPS),
        ("retrain", names(JobSettings) - BACKUPS | names(ClientSettings) | {"API_TOKEN_FILE"}),
        ("fraudctl", names(JobSettings) | names(ClientSettings) | {"API_TOKEN_FILE"}),
    ],
)
def test_each_variable_of_the_settings_reaches_the_container_that_reads_it(
    services: Services, service: str, expected: set[str]
) -> None:
    elsewhere = DATABASE | IMAGE_SAYS | TOKENS | NO_FILE | KUBERNETES

    assert set(services[service]["environment"]) == expected - elsewhere


def test_a_line_in_env_changes_a_setting(project: Project) -> None:
    with project.env_file.open("a") as file:
        file.write("FRAUD_THRESHOLD=0.3\nGATE_MIN_FRAUDS=80\n")

    services = json.loads(project.compose("--profile", "*", "config", "--format", "json"))["services"]

    assert services["fraud_api"]["environment"]["FRAUD_THRESHOLD"] == "0.3"
    assert services["fraud_api"]["environment"]["RETENTION_DAYS"] is None
    assert "GATE_MIN_FRAUDS" not in services["fraud_api"]["environment"]
    for name in JOBS:
        assert services[name]["environment"]["FRAUD_THRESHOLD"] == "0.3"
        assert services[name]["environment"]["GATE_MIN_FRAUDS"] == "80"


def test_every_line_of_the_example_is_one_that_compose_or_the_programs_read(project: Project) -> None:
    example = (ROOT / ".env.example").read_text()
    lines = dict(re.findall(r"^#?([A-Z_]+)=(.*)$", example, re.MULTILINE))
    interpolated = set(re.findall(r"\$\{([A-Z_]+)", (ROOT / "compose.yaml").read_text()))

    assert set(lines) - interpolated - names(ApiSettings) - names(JobSettings) == {"COMPOSE_PROFILES"}
    assert re.findall(r"^[A-Z_]+=.*$", example, re.MULTILINE) == [
        "API_TOKEN_FILE=secrets/api_token",
        "METRICS_TOKEN_FILE=secrets/metrics_token",
    ]
    write_env(project.env_file, lines)
    described = json.loads(project.compose("config", "--format", "json"))["services"]
    assert "mlflow" in described
    for name in ("api", "prometheus", "pushgateway", "grafana", "mlflow"):
        service = described["fraud_api" if name == "api" else name]
        assert service["ports"][0]["published"] == lines[f"{name.upper()}_PORT"]


def test_prometheus_knows_the_services_by_the_names_that_rules_and_dashboards_ask_for(services: Services) -> None:
    prometheus = yaml.safe_load((ROOT / "compose" / "prometheus.yml").read_text())
    labels: dict[str, set[str]] = {"namespace": set(), "service": set()}
    for job in prometheus["scrape_configs"]:
        (targets,) = job["static_configs"]
        (target,) = targets["targets"]
        service, port = target.split(":")
        assert services[service]["ports"][0]["target"] == int(port)
        for name, known in labels.items():
            known.add(targets["labels"][name])
    rules = mounts(services["prometheus"])["/etc/prometheus/rules"]

    assert rules == str(CHART / "files" / "rules")
    assert set(prometheus["rule_files"]) == {
        f"rules/{path.name}" for path in Path(rules).glob("*.yaml") if path.name != "jobs.yaml"
    }
    rules_text = "".join((CHART / "files" / path).read_text() for path in prometheus["rule_files"])
    for name, known in labels.items():
        asked_for = set(re.findall(rf'\b{name}="([^"]+)"', rules_text))
        assert asked_for
        assert asked_for <= known


def test_grafana_shows_the_chart_s_dashboards_and_asks_our_prometheus(services: Services) -> None:
    grafana = services["grafana"]
    found = mounts(grafana)
    provisioning = {path: Path(source) for path, source in found.items() if "/provisioning/" in path}
    (datasource,) = yaml.safe_load(provisioning["/etc/grafana/provisioning/datasources/prometheus.yaml"].read_text())[
        "datasources"
    ]
    (provider,) = yaml.safe_load(provisioning["/etc/grafana/provisioning/dashboards/fraud-detection.yaml"].read_text())[
        "providers"
    ]
    dashboards = Path(found[provider["options"]["path"]])

    assert dashboards == CHART / "files" / "dashboards"
    assert all(mount["read_only"] for mount in grafana["volumes"])
    assert (datasource["type"], datasource["isDefault"]) == ("prometheus", True)
    assert datasource["url"] == f"http://prometheus:{services['prometheus']['ports'][0]['target']}"
    home = Path(grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert str(home.parent) == provider["options"]["path"]
    assert (dashboards / home.name).is_file()


def test_grafana_users_are_at_most_viewers_and_it_calls_no_other_server(services: Services) -> None:
    environment = services["grafana"]["environment"]

    assert environment["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    assert environment["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
    assert environment["GF_AUTH_DISABLE_LOGIN_FORM"] == "true"
    assert {value for name, value in environment.items() if name.startswith(("GF_ANALYTICS", "GF_NEWS"))} == {"false"}
    assert environment["GF_PLUGINS_PREINSTALL_DISABLED"] == "true"


def test_mlflow_answers_the_name_by_which_the_jobs_call_it(services: Services) -> None:
    documented = re.search(r"^#MLFLOW_TRACKING_URI=http://(\S+)$", (ROOT / ".env.example").read_text(), re.MULTILINE)
    (allowed,) = [option for option in services["mlflow"]["command"] if option.startswith("--allowed-hosts=")]

    assert documented
    assert documented[1] in allowed.partition("=")[2].split(",")
    assert documented[1].split(":") == ["mlflow", str(services["mlflow"]["ports"][0]["target"])]

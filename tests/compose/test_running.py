"""compose.yaml on a real Docker engine scores, scrapes, finds drift, retrains, stops, and keeps everything."""

import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.compose.project import Project, run, write_env
from tests.support import images
from tests.support.ports import free_port
from tests.support.programs import skip_or_fail

SERVERS = ("fraud_api", "prometheus", "pushgateway")
TRANSACTION = [0.0] * 29


@dataclass(frozen=True)
class ComposedInstallation:
    """A running project, and its addresses."""

    project: Project
    token_file: Path
    api: str
    prometheus: str
    pushgateway: str

    def start(self) -> None:
        self.project.compose("up", "--detach", "--wait", *SERVERS)

    def ask(self, method: str, path: str, **arguments: Any) -> requests.Response:
        """Send a request to the API."""
        header = {"Authorization": f"Bearer {self.token_file.read_text().strip()}"}
        return requests.request(method, self.api + path, headers=header, timeout=30, **arguments)

    def get(self, path: str) -> dict[str, Any]:
        answer = self.ask("GET", path)
        assert answer.status_code == 200, answer.text
        document: dict[str, Any] = answer.json()
        return document

    def score(self, transaction_id: str) -> dict[str, Any]:
        answer = self.ask("POST", "/predict", json={"data": [TRANSACTION], "transaction_ids": [transaction_id]})
        assert answer.status_code == 200, answer.text
        document: dict[str, Any] = answer.json()
        return document

    def figures(self, query: str) -> list[dict[str, Any]]:
        """Query Prometheus until it finds something."""
        deadline = time.monotonic() + 90
        while True:
            answer = requests.get(f"{self.prometheus}/api/v1/query", params={"query": query}, timeout=30)
            assert answer.status_code == 200, answer.text
            found: list[dict[str, Any]] = answer.json()["data"]["result"]
            if found:
                return found
            assert time.monotonic() < deadline, f"{query} found no series"
            time.sleep(1)


def _stand_in(image: str) -> str:
    """Return an image like the published one: made from it or, where it cannot be had, from another version of it."""
    published = image
    if run("docker", "image", "inspect", image).returncode != 0 and run("docker", "pull", image).returncode != 0:
        repository = image.rpartition(":")[0]
        here = run("docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", repository).stdout.split()
        if not here:
            skip_or_fail(f"{image} cannot be pulled")
        published = here[0]
    tag = f"fraud-detection-test/{published.rpartition('/')[2]}"
    arguments = ("--file", "tests/compose/stand-in.Dockerfile", "--build-arg", f"IMAGE={published}")
    built = run("docker", "build", *arguments, "--tag", tag, "tests/compose")
    assert built.returncode == 0, built.stderr
    return tag


@pytest.fixture(scope="module")
def installation(
    request: pytest.FixtureRequest, docker_compose: None, token_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ComposedInstallation]:
    """The servers of compose.yaml, with ports and volumes that belong to this run."""
    images.require_engine()
    image_tags = {image.partition(":")[2] for image in (images.build_api_image(), images.build_jobs_image())}
    assert len(image_tags) == 1
    ports = {name: free_port() for name in ("API_PORT", "PROMETHEUS_PORT", "PUSHGATEWAY_PORT")}
    variables = {
        "API_TOKEN_FILE": str(token_file),
        "METRICS_TOKEN_FILE": str(token_file.with_name("metrics_token")),
        "IMAGE_TAG": image_tags.pop(),
        **ports,
    }
    env_file = tmp_path_factory.mktemp("project") / "env"
    project = Project(f"fraud-test-{secrets.token_hex(4)}", write_env(env_file, variables))
    for name in ("prometheus", "pushgateway"):
        variables[f"{name.upper()}_IMAGE"] = _stand_in(project.compose("config", "--images", name).strip())
    write_env(env_file, variables)
    urls = (f"http://127.0.0.1:{port}" for port in ports.values())
    started = ComposedInstallation(project, token_file, *urls)
    failed_before = request.session.testsfailed
    try:
        started.start()
        yield started
    finally:
        if request.session.testsfailed > failed_before:
            print(started.project.try_to("logs", "--no-color").stdout)
        started.project.compose("--profile", "*", "down", "--volumes", "--remove-orphans", "--timeout", "10")


def test_remembers_what_it_scored(installation: ComposedInstallation) -> None:
    answer = installation.score("scored-in-compose")

    row = installation.project.compose(
        "exec", "-T", "fraud_api", "sqlite3", "/app/data/requests.db",
        "SELECT transaction_id, request_id FROM requests ORDER BY ts DESC LIMIT 1;",
    )  # fmt: skip
    assert row.strip() == f"scored-in-compose|{answer['request_id']}"
    assert requests.get(f"{installation.api}/metrics", timeout=30).status_code == 401


def test_prometheus_sees_the_api_and_the_pushgateway(installation: ComposedInstallation) -> None:
    installation.score("counted")

    for service in ("fraud-detection-api", "fraud-detection-pushgateway"):
        (up,) = installation.figures(f'up{{namespace="fraud", service="{service}"}} == 1')
        assert up["metric"]["job"] == service
    assert installation.figures('sum(predictions_total{service="fraud-detection-api"}) > 0')


def test_prometheus_takes_the_chart_s_rules(installation: ComposedInstallation) -> None:
    installation.project.compose(
        "exec", "-T", "prometheus", "promtool", "check", "config", "/etc/prometheus/prometheus.yml"
    )
    installation.figures("up")  # the health of a rule is unknown until its first evaluation
    groups = requests.get(f"{installation.prometheus}/api/v1/rules", timeout=30).json()["data"]["groups"]
    rules = {rule["name"]: rule for group in groups for rule in group["rules"]}

    assert {"FraudApiDown", "FraudDrift", "FraudModelStale", "FraudVolumeFilling"} <= set(rules)
    assert not [rule for rule in rules.values() if rule["health"] == "err" or rule["state"] == "firing"]


def test_what_drift_finds_reaches_prometheus(installation: ComposedInstallation) -> None:
    told = installation.project.compose("run", "--rm", "-T", "drift")

    assert "Drift could not be judged yet" in told
    pushed = requests.get(f"{installation.pushgateway}/metrics", timeout=30).text
    assert 'fraud_drift_state{instance="",job="fraud-drift",state="insufficient_data"} 1' in pushed
    (found,) = installation.figures('fraud_drift_state{job="fraud-drift"} == 1')
    assert found["metric"]["service"] == "fraud-detection-pushgateway"
    assert found["metric"]["state"] == "insufficient_data"


def test_a_model_retrained_on_imported_history_is_served(installation: ComposedInstallation, tmp_path: Path) -> None:
    before = installation.get("/model")
    fraudctl = ("run", "--rm", "-T", "fraudctl")
    history = tmp_path / "history.csv"
    history.write_text(
        installation.project.compose(*fraudctl, "demo-data", "--rows", "6000", "--fraud-share", "0.05", "--seed", "7")
    )

    installation.project.compose(*fraudctl, "import-csv", "/dev/stdin", stdin=history)
    told = installation.project.compose("run", "--rm", "-T", "retrain", "--force")

    assert told.startswith("promoted:"), told
    after = installation.get("/model")
    assert after["digest"] != before["digest"]
    assert after["trained_on"] == "labels"
    installation.score("by-the-new-model")
    assert installation.get("/transactions/by-the-new-model")["model_digest"] == after["digest"]
    assert installation.figures('fraud_retrain_outcome{job="fraud-retrain", outcome="promoted"} == 1')
    listed = installation.project.compose(*fraudctl, "models", "list")
    assert f"-> {after['version']}" in listed
    checked = installation.project.compose(*fraudctl, "db", "check")
    assert "history.db (6,000 rows): ok" in checked


def test_a_job_that_fails_says_so_by_its_exit_code(installation: ComposedInstallation) -> None:
    ended = installation.project.try_to("run", "--rm", "-T", "-e", "GATE_MIN_FRAUDS=1", "retrain")

    assert ended.returncode == 2, ended.stderr
    assert "GATE_MIN_FRAUDS: expected a whole number from 5" in ended.stderr


def test_a_backup_can_be_taken_out_and_brought_back(installation: ComposedInstallation, tmp_path: Path) -> None:
    fraudctl = ("run", "--rm", "-T", "fraudctl")
    installation.score("before-the-backup")

    installation.project.compose(*fraudctl, "db", "backup", "--into", "/app/data/backups", "--keep", "7")
    installation.score("after-the-backup")
    installation.project.compose("cp", "fraud_api:/app/data/backups", str(tmp_path))
    (backup,) = (tmp_path / "backups").iterdir()
    installation.project.compose("stop", "fraud_api")
    installation.project.compose(*fraudctl, "db", "restore", f"/app/data/backups/{backup.name}", "--replace")
    installation.start()

    assert installation.get("/transactions/before-the-backup")
    assert installation.ask("GET", "/transactions/after-the-backup").status_code == 404


def test_down_and_up_keep_what_was_stored(installation: ComposedInstallation) -> None:
    installation.score("before-the-end")
    installation.project.compose("run", "--rm", "-T", "drift")
    model = installation.get("/model")
    first = installation.get("/transactions/before-the-end")
    assert installation.figures("predictions_total")
    scraped_until = time.time()

    installation.project.compose("down")
    installation.start()

    assert installation.get("/transactions/before-the-end") == first
    assert installation.get("/model") == model
    pushed = requests.get(f"{installation.pushgateway}/metrics", timeout=30).text
    assert 'fraud_drift_state{instance="",job="fraud-drift"' in pushed
    assert installation.figures(f"predictions_total @ {scraped_until:.3f}")


def test_a_token_that_was_changed_in_its_file_is_valid_without_a_restart(installation: ComposedInstallation) -> None:
    installation.token_file.write_text(
        f"{secrets.token_hex(32)}\n"
    )  # written in place, because another file would not be mounted

    deadline = time.monotonic() + 60
    while installation.ask("GET", "/model").status_code == 401 and time.monotonic() < deadline:
        time.sleep(1)
    assert installation.get("/model")
    changed = time.time()
    (up,) = installation.figures(f'(up{{service="fraud-detection-api"}} == 1) and timestamp(up) > {changed:.0f}')
    assert up["value"][1] == "1"

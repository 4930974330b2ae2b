"""Walk the whole loop from the command line with the real server, as the README describes it."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from sklearn.metrics import average_precision_score

from fraud_detection.features import default_features, load_features
from fraud_detection.model.files import CURRENT, PICKLE
from fraud_detection.model.read import load, read_manifest, versions
from tests.support.environment import TOKEN
from tests.support.ports import free_port
from tests.support.project import ROOT
from tests.support.sample import CALM, Sample, made_up_sample, read_sample, shifted
from tests.support.waiting import PATIENCE_SECONDS, answers, wait_until

pytestmark = pytest.mark.long_file


@dataclass
class ServingInstallation:
    """An installation in one folder, which tests use only by command line and HTTP."""

    folder: Path
    extra: dict[str, str] = field(default_factory=dict)
    port: str = field(default_factory=free_port)
    probe_port: str = field(default_factory=free_port)

    @property
    def environment(self) -> dict[str, str]:
        return {
            **{name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ},
            "PYTHONPATH": str(ROOT),
            "API_TOKEN": TOKEN,
            "API_URL": self.url,
            "PORT": self.port,
            "PROBE_PORT": self.probe_port,
            "LABEL_MATURITY_DAYS": "0",
            **self.extra,
        }

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def models_dir(self) -> Path:
        return self.folder / "models"

    def fraudctl(self, *arguments: object) -> str:
        return self.run("fraudctl", *arguments)

    def run(self, module: str, *arguments: object) -> str:
        command = [sys.executable, "-m", module, *map(str, arguments)]
        ended = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False, timeout=300
        )
        assert ended.returncode == 0, f"{command}\n{ended.stdout}\n{ended.stderr}"
        return ended.stdout

    def start(self) -> "subprocess.Popen[bytes]":
        with (self.folder / "server.log").open("wb") as log:
            command = [sys.executable, "-m", "fraudctl", "serve"]
            server = subprocess.Popen(command, cwd=self.folder, env=self.environment, stderr=log)
        try:
            wait_until(lambda: answers(f"{self.url}/health"), process=server)
        except AssertionError:
            server.kill()
            server.wait()
            raise AssertionError((self.folder / "server.log").read_text()) from None
        return server

    def get(self, path: str) -> dict[str, Any]:
        answer = requests.get(self.url + path, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=PATIENCE_SECONDS)
        assert answer.status_code == 200, answer.text
        document: dict[str, Any] = answer.json()
        return document

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Send a request, and repeat it under its key while the API is too busy to store it, as every client should."""
        headers = {"Authorization": f"Bearer {TOKEN}", "Idempotency-Key": str(uuid.uuid4())}
        answers: list[requests.Response] = []

        def is_answered() -> bool:
            answers.append(requests.post(self.url + path, json=body, headers=headers, timeout=PATIENCE_SECONDS))
            return answers[-1].status_code != 503

        wait_until(is_answered, otherwise=lambda: answers[-1].text)
        assert answers[-1].status_code == 200, answers[-1].text
        document: dict[str, Any] = answers[-1].json()
        return document

    def predict(self, rows: list[list[float]], ids: list[str]) -> list[float]:
        scores: list[float] = []
        for start in range(0, len(rows), 1000):
            part = slice(start, start + 1000)
            scores += self.post("/predict", {"data": rows[part], "transaction_ids": ids[part]})["fraud_probability"]
        return scores

    def label(self, ids: list[str], truths: list[int]) -> None:
        for start in range(0, len(ids), 1000):
            part = slice(start, start + 1000)
            labels = [
                {"transaction_id": name, "is_fraud": bool(truth), "source": "chargeback"}
                for name, truth in zip(ids[part], truths[part], strict=True)
            ]
            self.post("/labels", {"labels": labels})

    def current_digest(self) -> str:
        return read_manifest(self.models_dir / CURRENT).digest

    def promoted(self, *retrain: str) -> dict[str, Any]:
        """Retrain, which must promote, and return what the API then serves: the promoted model, without a wait."""
        assert self.fraudctl("retrain", *retrain).startswith("promoted")
        served = self.get("/model")
        assert served["digest"] == self.current_digest()
        return served

    def drift_result(self) -> dict[str, Any]:
        result: dict[str, Any] = json.loads((self.folder / "data" / "drift_result.json").read_text())
        return result


@pytest.fixture(scope="session")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "baseline"
    subprocess.run([sys.executable, "-m", "jobs.seed", "--out", folder], cwd=ROOT, check=True, capture_output=True)
    return folder


@pytest.fixture
def installation(tmp_path: Path, baseline: Path) -> ServingInstallation:
    return ServingInstallation(tmp_path, {"BASELINE_DIR": str(baseline)})


@pytest.fixture
def serving(installation: ServingInstallation) -> Iterator[ServingInstallation]:
    """A bootstrapped installation whose server runs; the folder may hold imported history already."""
    installation.fraudctl("bootstrap")
    server = installation.start()
    yield installation
    server.send_signal(signal.SIGTERM)
    assert server.wait(PATIENCE_SECONDS) == 0, (installation.folder / "server.log").read_text()


@pytest.fixture(scope="session")
def sample(request: pytest.FixtureRequest) -> Sample:
    """The real sample or made-up transactions, as the test asks."""
    return made_up_sample() if request.param == "made_up" else read_sample(request.getfixturevalue("real_data"))


@pytest.mark.stories
def test_the_first_screen_of_the_readme_shows_what_make_run_prints(installation: ServingInstallation) -> None:
    with (installation.folder / "printed").open("w") as printed:
        command = [sys.executable, "-m", "fraudctl", "serve", "--first-time"]
        server = subprocess.Popen(command, cwd=installation.folder, env=installation.environment, stdout=printed)
    try:
        wait_until(lambda: answers(f"{installation.url}/health"), process=server)
        row = json.loads(re.findall(r"-d '(.*)'", (installation.folder / "printed").read_text())[0])["data"][0]
        scored = installation.post("/predict", {"data": [row]})
    finally:
        server.terminate()
        server.wait(PATIENCE_SECONDS)

    readme = (ROOT / "README.md").read_text()
    assert f'{{"data": [[{", ".join(map(str, row[:3]))}, … 29 numbers]]}}' in readme
    score, flag = round(scored["fraud_probability"][0], 4), json.dumps(scored["is_flagged"])
    assert f'{{"fraud_probability": [{score}], "is_flagged": {flag}, "threshold": {scored["threshold"]},' in readme


@pytest.mark.parametrize(
    "sample",
    [pytest.param("real", marks=pytest.mark.faults), pytest.param("made_up", marks=pytest.mark.stories)],
    indirect=True,
)
def test_the_loop_closes_on_transactions_of_the_public_set(
    installation: ServingInstallation,
    sample: Sample,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # import half, before anything serves
    (installation.folder / "history.csv").write_text(sample.text(sample.history))
    installation.fraudctl("import-csv", "history.csv")
    serving: ServingInstallation = request.getfixturevalue("serving")
    assert serving.get("/model")["trained_on"] == "synthetic"

    # the first real model replaces the synthetic one and is served without a restart
    first = serving.promoted("--force")
    assert first["trained_on"] == "labels"

    # score the rest over HTTP, label it; the transactions change half-way, and the current model suffers
    calm_ids = [f"calm-{number}" for number in range(CALM)]
    calm_rows = sample.scaled(sample.calm, first["amount_scaling"])
    serving.predict(calm_rows, calm_ids)
    serving.label(calm_ids, sample.truths(sample.calm))
    truths = sample.truths(sample.changed)
    changed_ids = [f"changed-{number}" for number in range(len(truths))]
    unshifted_rows = sample.scaled(sample.changed, first["amount_scaling"])
    scores = serving.predict(shifted(unshifted_rows), changed_ids)
    serving.label(changed_ids, truths)
    champion = load(serving.models_dir / PICKLE, default_features())
    before = average_precision_score(truths, champion.score(np.array(unshifted_rows)))
    after = average_precision_score(truths, scores)
    assert after < before - 0.1

    # drift is found
    serving.fraudctl("drift")
    result = serving.drift_result()
    assert result["drift"] is True
    assert result["state"] == "drift"

    # which makes a retraining due, the gate passes, and the new model answers
    serving.extra["RETRAIN_COOLDOWN_DAYS"] = "0"  # the first judgement is minutes old, not a week
    promoted = serving.promoted()["digest"]
    assert promoted != first["digest"]
    serving.predict(shifted(unshifted_rows[:1]), ["after-the-promotion"])
    assert serving.get("/transactions/after-the-promotion")["model_digest"] == promoted
    challenger = load(serving.models_dir / PICKLE, default_features())
    unseen = slice(len(truths) // 2, None)  # the newest half of what changed lies in the hold-out
    improved = average_precision_score(truths[unseen], challenger.score(np.array(shifted(unshifted_rows)[unseen])))
    suffered = average_precision_score(truths[unseen], scores[unseen])
    assert improved > suffered

    # one decision can be traced from end to end
    lineage = serving.fraudctl("lineage", "after-the-promotion")
    assert promoted[:12] in lineage
    with capsys.disabled():
        print(
            f"\naverage precision of the current model: {before:.3f}, after the change {after:.3f}; on its newest "
            f"half {suffered:.3f}, and {improved:.3f} with the retrained model\n{lineage}"
        )


@pytest.mark.parametrize("sample", ["made_up"], indirect=True)
def test_with_only_derived_labels_nothing_is_promoted(serving: ServingInstallation, sample: Sample) -> None:
    rows = slice(0, 3000)
    before = serving.get("/model")
    serving.predict(sample.scaled(rows, before["amount_scaling"]), [f"unlabelled-{number}" for number in range(3000)])

    story = serving.fraudctl("retrain", "--force")

    assert story.startswith("held_derived")
    assert "POST /labels" in story
    assert serving.get("/model") == before
    assert versions(serving.models_dir) == [before["version"]]


FEATURES = {
    "features": [
        {"name": "amount_eur", "minimum": 0, "maximum": 100000, "description": "in euro"},
        {"name": "seconds_since_last", "minimum": 0, "maximum": 100000},
        {"name": "distance_km", "minimum": 0, "maximum": 20100},
        {"name": "merchant_risk", "minimum": 0, "maximum": 1},
        {"name": "card_age_days", "minimum": 0, "maximum": 20000},
        {"name": "tries_today", "minimum": 0, "maximum": 1000},
        {"name": "hour", "minimum": 0, "maximum": 24},
    ]
}


def made_up(rows: int, seed: int, *, change: float = 0.0) -> tuple[list[list[float]], list[int]]:
    """Make up transactions of seven features with other names and scales."""
    random = np.random.default_rng(seed)
    is_fraud = random.random(rows) < 0.1
    # an interaction that statistics of single features miss: expensive and quick, or far away at night
    is_quick = is_fraud & (random.random(rows) < 0.5)
    is_far = is_fraud & ~is_quick
    columns = [
        random.lognormal(3 + 2.5 * is_quick + change),
        random.lognormal(10 - 4 * is_quick),
        np.minimum(random.lognormal(1 + 3 * is_far + change), 20000),
        random.beta(2 + is_fraud, 8, rows),
        random.uniform(0, 4000, rows),
        random.poisson(1 + 1.5 * is_fraud).astype(float),
        np.where(is_far, random.uniform(0, 6, rows), random.uniform(0, 24, rows)),
    ]
    matrix = np.minimum(np.column_stack(columns), 100_000)
    return matrix.tolist(), is_fraud.astype(int).tolist()


@pytest.mark.stories
def test_the_loop_closes_on_transactions_of_seven_other_features(tmp_path: Path) -> None:
    (tmp_path / "features.json").write_text(json.dumps(FEATURES))
    installation = ServingInstallation(
        tmp_path, {"FEATURES_FILE": str(tmp_path / "features.json"), "BASELINE_DIR": str(tmp_path / "baseline")}
    )
    names = load_features(tmp_path / "features.json").names
    rows, truths = made_up(3000, seed=1)
    with (tmp_path / "history.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [[*names, "Class"], *([*row, truth] for row, truth in zip(rows, truths, strict=True))]
        )

    installation.fraudctl("features", "check")
    installation.fraudctl("import-csv", "history.csv")
    installation.run("jobs.seed", "--rows", 3000)  # `bootstrap` would train on ten times as many
    installation.fraudctl("bootstrap")
    server = installation.start()
    try:
        assert installation.get("/model")["features"] == list(names)
        rows, truths = made_up(4000, seed=2, change=-5.0)
        ids = [f"t{number}" for number in range(4000)]
        first = installation.promoted("--force")
        installation.predict(rows, ids)
        installation.label(ids, truths)
        installation.fraudctl("drift")
        assert installation.drift_result()["drift"] is True
        installation.extra["RETRAIN_COOLDOWN_DAYS"] = "0"
        assert installation.promoted()["digest"] != first["digest"]
        assert re.search("amount_eur", installation.fraudctl("lineage", "t0"))
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(PATIENCE_SECONDS) == 0

"""NOTES.txt gives the next commands for this installation, and says what it lacks."""

import json
import re
import shutil
from pathlib import Path
from typing import Any, Unpack

import pytest

from fraud_detection.features import Feature, FeatureList, default_features
from tests.chart.helm import CI, Helm, How, parsed
from tests.support.project import CHART

OPERATOR = ("monitoring.coreos.com/v1",)
COMPLETE: dict[str, Any] = {
    "auth": {"existingSecret": "tokens"},
    "networkPolicy": {"apiServerCidr": "10.0.0.1/32"},
    "jobs": {"backup": {"enabled": True, "existingClaim": "backups"}},
}


@pytest.fixture(scope="session")
def chart_with_notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chart with one more template that holds the notes, because Helm 3 prints them only with a cluster."""
    chart = tmp_path_factory.mktemp("notes") / "fraud-detection"
    shutil.copytree(CHART, chart)
    (chart / "templates" / "notes.yaml").write_text(
        'kind: Notes\nmetadata: {name: notes}\ntext: {{ include (print .Template.BasePath "/NOTES.txt") . | toJson }}\n'
    )
    return chart


def notes(helm: Helm, values: dict[str, Any] | None = None, **how: Unpack[How]) -> str:
    [found] = [m for m in parsed(helm.template(values, **how)) if m["kind"] == "Notes"]
    text: str = found["text"]
    return text


def test_a_complete_installation_gets_the_next_commands(helm: Helm, chart_with_notes: Path) -> None:
    said = notes(helm, COMPLETE, chart=chart_with_notes, api_versions=OPERATOR)

    assert "WARNING" not in said
    for command in (
        "kubectl -n fraud rollout status deployment/fraud-fraud-detection-api\n",
        "kubectl -n fraud port-forward service/fraud-fraud-detection-api 5000:5000 &\n",
        "kubectl -n fraud get secret tokens \\\n    -o go-template='{{index .data \"api-token\" | base64decode}}')\n",
        'sqlite3 /app/data/requests.db "SELECT * FROM requests ORDER BY ts DESC LIMIT 1;"\n',
        "kubectl -n fraud create job --from=cronjob/fraud-fraud-detection-fraudctl admin\n",
        "fraudctl import /dev/stdin < history.csv\n",
        "helm test fraud -n fraud\n",
        "kubectl -n fraud delete pvc/fraud-fraud-detection-data",
    ):
        assert command in said


@pytest.mark.parametrize("ci", CI)
@pytest.mark.parametrize("api_versions", [(), OPERATOR], ids=["no-operator", "operator"])
def test_what_the_notes_name_is_there(
    helm: Helm, ci: str, api_versions: tuple[str, ...], chart_with_notes: Path
) -> None:
    manifests = parsed(helm.template(ci=ci, api_versions=api_versions, chart=chart_with_notes))
    said = notes(helm, ci=ci, api_versions=api_versions, chart=chart_with_notes)
    there = {(m["kind"].lower(), m["metadata"]["name"]) for m in manifests}
    short = {"pvc": "persistentvolumeclaim"}

    assert "{{ " not in said
    objects = re.findall(r"\b(deployment|service|cronjob|pvc|secret)/([a-z0-9][-a-z0-9]*)", said)
    assert objects
    for kind, name in objects:
        assert (short.get(kind, kind), name) in there, f"{kind}/{name}"


@pytest.mark.parametrize(
    ("values", "features"),
    [
        ({}, default_features()),
        (
            {"features": [{"name": "a", "minimum": 2.5}, {"name": "b", "maximum": -3}, {"name": "c"}]},
            FeatureList((Feature("a", minimum=2.5), Feature("b", maximum=-3), Feature("c"))),
        ),
    ],
)
def test_the_example_is_a_transaction_that_the_api_takes(
    helm: Helm, values: dict[str, Any], features: FeatureList, chart_with_notes: Path
) -> None:
    [body] = re.findall(r"-d '(.*)'", notes(helm, values, chart=chart_with_notes))

    assert features.to_matrix(json.loads(body)["data"]).shape == (1, len(features))


@pytest.mark.parametrize(
    ("mode", "sentence"),
    [
        ("restart", "when retraining restarts deployment/fraud-fraud-detection-api"),
        ("reload", "within seconds, without a restart"),
        ("none", "only at the next restart of deployment/fraud-fraud-detection-api"),
    ],
)
def test_says_when_the_api_loads_a_promoted_model(helm: Helm, mode: str, sentence: str, chart_with_notes: Path) -> None:
    said = notes(helm, {"jobs": {"retrain": {"rollout": {"mode": mode}}}}, chart=chart_with_notes)

    assert f"The API loads a promoted model {sentence} (jobs.retrain.rollout.mode={mode})." in " ".join(said.split())


NO_JOBS = {name: {"enabled": False} for name in ("detectDrift", "retrain", "fraudctl")}
WARNINGS: list[tuple[dict[str, Any], tuple[str, ...], str]] = [
    ({"auth": {"existingSecret": ""}}, OPERATOR, "the chart generated a token once and stored it in a Secret."),
    (
        {"features": [{"name": "amount"}]},
        OPERATOR,
        "no image contains a baseline for your own features.",
    ),
    (
        {"persistence": {"enabled": False}, "jobs": NO_JOBS | {"backup": {"enabled": False}}},
        OPERATOR,
        "persistence.enabled=false. Every decision and model is lost with the pod.",
    ),
    (
        {"jobs": {"backup": {"enabled": False}}},
        OPERATOR,
        "there is no backup. Set jobs.backup.enabled=true, or back up the volume yourself.",
    ),
    (
        {"jobs": {"backup": {"enabled": True, "existingClaim": "backups"}, "retrain": {"rollout": {"mode": "none"}}}},
        OPERATOR,
        "jobs.retrain.rollout.mode=none. Restart deployment/fraud-fraud-detection-api yourself after each promotion.",
    ),
    (
        {"rbac": {"create": False}},
        OPERATOR,
        "rbac.create=false. Account fraud-fraud-detection-retrain needs get and patch on "
        "deployment/fraud-fraud-detection-api, or no model can be promoted.",
    ),
    ({}, (), "the Prometheus operator's CRDs are missing, so the chart created no ServiceMonitors or alerts."),
    (
        {"pushgateway": {"enabled": False}},
        OPERATOR,
        "there is no Pushgateway, so drift and retraining have no metrics.",
    ),
    (
        {"networkPolicy": {"enabled": False}},
        OPERATOR,
        "networkPolicy.enabled=false. Every pod of the cluster can reach the API and the Pushgateway.",
    ),
    (
        {"networkPolicy": {"apiServerCidr": ""}},
        OPERATOR,
        "networkPolicy.apiServerCidr is empty, so retraining may reach ports 443 and 6443 of any address.",
    ),
    (
        {
            "api": {"ingress": {"enabled": True, "hosts": [{"host": "fraud.example"}]}},
            "networkPolicy": {"apiServerCidr": "10.0.0.1/32", "ingressFrom": [{"podSelector": {}}]},
        },
        OPERATOR,
        "api.ingress.tls is empty. Unless the controller has its own certificate, tokens travel unencrypted.",
    ),
]


@pytest.mark.parametrize(("values", "api_versions", "warning"), WARNINGS, ids=[w[:40] for _, _, w in WARNINGS])
def test_warns_of_what_is_missing_and_of_nothing_else(
    helm: Helm, values: dict[str, Any], api_versions: tuple[str, ...], warning: str, chart_with_notes: Path
) -> None:
    said = " ".join(notes(helm, COMPLETE | values, api_versions=api_versions, chart=chart_with_notes).split())

    assert said.count("WARNING: ") == 1
    assert f"WARNING: {warning}" in said


def test_every_warning_of_the_notes_is_tested() -> None:
    assert (CHART / "templates" / "NOTES.txt").read_text().count("WARNING: ") == len(WARNINGS)


def test_the_notes_never_contain_a_token(helm: Helm, chart_with_notes: Path) -> None:
    manifests = parsed(helm.template({"auth": {"existingSecret": ""}}, chart=chart_with_notes))
    [secret] = [m for m in manifests if m["kind"] == "Secret"]
    [said] = [m["text"] for m in manifests if m["kind"] == "Notes"]

    assert not set(secret["data"].values()) & set(said.split())

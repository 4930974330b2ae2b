"""What would not work is refused when it is rendered, in words that say what to do instead."""

import re
from typing import Any

import pytest

from tests.chart.helm import Helm
from tests.support.project import CHART

NO_JOBS = {name: {"enabled": False} for name in ("detectDrift", "retrain", "backup", "fraudctl")}
POSTGRESQL = {"mode": "postgresql", "existingSecret": "db"}
ANYWHERE = {"ingressFrom": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}

REFUSED: list[tuple[dict[str, Any], str]] = [
    (
        {"api": {"replicas": 2}},
        "api.replicas is 2, but SQLite takes decisions from one process: set api.replicas=1, or "
        "database.mode=postgresql with database.existingSecret",
    ),
    (
        {"api": {"hpa": {"enabled": True}}},
        "api.hpa.enabled is true, but SQLite takes decisions from one process: set api.hpa.enabled=false, or "
        "database.mode=postgresql with database.existingSecret",
    ),
    (
        {"persistence": {"models": {"enabled": True}}},
        "persistence.models.enabled is true, but with SQLite the models lie beside the database, on one node anyway: "
        "set persistence.models.enabled=false, or database.mode=postgresql with database.existingSecret",
    ),
    (
        {"database": {"mode": "postgresql"}},
        "database.mode is postgresql, but nothing says where the database is: set database.existingSecret to a "
        "Secret whose key database-url is postgresql://user:password@host:5432/name",
    ),
    (
        {"persistence": {"accessMode": "ReadWriteMany"}},
        "persistence.accessMode is ReadWriteMany, but an SQLite file (decisions, or MLflow's store) lies on that "
        "volume and can corrupt when several nodes open it: set persistence.accessMode=ReadWriteOnce; with "
        "PostgreSQL the models may have a ReadWriteMany claim of their own (persistence.models.enabled=true)",
    ),
    (
        {
            "persistence": {"accessMode": "ReadWriteOncePod"},
            "jobs": {"backup": {"enabled": True, "existingClaim": "fraud-detection-backups"}},
        },
        "persistence.accessMode is ReadWriteOncePod, so that no job could ever run beside the API: set "
        "persistence.accessMode=ReadWriteOnce, or "
        "jobs.backup.enabled=false,jobs.detectDrift.enabled=false,jobs.retrain.enabled=false",
    ),
    (
        {
            "persistence": {"accessMode": "ReadWriteOncePod"},
            "jobs": NO_JOBS,
            "api": {"updateStrategy": "RollingUpdate"},
        },
        "api.updateStrategy is RollingUpdate, but with persistence.accessMode=ReadWriteOncePod the new pod would "
        "wait for the old one for ever: set api.updateStrategy=auto, or persistence.accessMode=ReadWriteOnce",
    ),
    (
        {
            "persistence": {"accessMode": "ReadWriteOncePod"},
            "jobs": NO_JOBS,
            "api": {"replicas": 2},
            "database": POSTGRESQL,
        },
        "several replicas of the API, but persistence.accessMode=ReadWriteOncePod lets in one pod: set "
        "persistence.accessMode=ReadWriteOnce, or give the models a claim of their own "
        "(persistence.models.enabled=true)",
    ),
    (
        {"persistence": {"enabled": False}},
        "persistence.enabled is false, but jobs read what the API stores, and an emptyDir is not shared between "
        "pods: set persistence.enabled=true, or "
        "jobs.detectDrift.enabled=false,jobs.retrain.enabled=false,jobs.fraudctl.enabled=false",
    ),
    (
        {"persistence": {"models": {"enabled": True, "accessMode": "ReadWriteOncePod"}}, "database": POSTGRESQL},
        "persistence.models.accessMode is ReadWriteOncePod, but the API and the jobs mount that claim: set it to "
        "ReadWriteMany, or to ReadWriteOnce where all of them shall run on one node",
    ),
    (
        {
            "persistence": {"existingClaim": "one", "models": {"enabled": True, "existingClaim": "one"}},
            "database": POSTGRESQL,
        },
        "persistence.models.existingClaim is the claim of the data: name another one, or set "
        "persistence.models.enabled=false to keep the models there",
    ),
    (
        {
            "persistence": {"existingClaim": "one"},
            "jobs": {"backup": {"enabled": True, "existingClaim": "one"}},
        },
        "jobs.backup.existingClaim is a claim that is backed up, so that both would be lost together: "
        "name another one, best on other disks",
    ),
    (
        {"jobs": {"backup": {"enabled": True}}},
        "jobs.backup.enabled is true, but nothing says where to: set jobs.backup.existingClaim to a claim on other "
        "disks than the data, which outlives this release",
    ),
    (
        {"api": {"topologySpreadConstraints": [{"maxSkew": 1}]}},
        "api.topologySpreadConstraints spread pods that a ReadWriteOnce volume holds on one node: remove them, or "
        "with PostgreSQL give the models a ReadWriteMany claim (persistence.models.enabled=true)",
    ),
    (
        {"config": {"latestDb": "/srv/requests.db"}},
        "config.latestDb is /srv/requests.db, which lies on no volume: name a file in /app/data/",
    ),
    (
        {"config": {"modelPath": "/srv/rf_model.pkl"}},
        "config.modelPath is /srv/rf_model.pkl, which lies on no volume: name a file in /app/models/",
    ),
    (
        {"api": {"preStopSleepSeconds": 15}},
        "api.terminationGracePeriodSeconds is 40, but stopping takes up to 45 s (15 until load balancers know, 20 "
        "for requests under way, 10 to close the database): set it to 45 or more",
    ),
    (
        {"api": {"progressDeadlineSeconds": 5}},
        "api.progressDeadlineSeconds is 5, but a pod counts only after api.minReadySeconds=5: set it higher, 240 for "
        "instance",
    ),
    (
        {"api": {"progressDeadlineSeconds": 300}},
        "api.progressDeadlineSeconds is 300 and jobs.retrain.rollout.timeoutSeconds 300, so that the job would give "
        "up before Kubernetes says why: set the first lower or the second higher",
    ),
    (
        {"jobs": {"retrain": {"activeDeadlineSeconds": 600}}},
        "jobs.retrain.activeDeadlineSeconds is 600, but a rollout and its restoration alone may take 600 s: set it "
        "higher, by the time of a training",
    ),
    (
        {"jobs": {"retrain": {"serviceAccount": {"create": False}}}},
        "jobs.retrain.serviceAccount.create is false and no account is named, so that the right to restart would go "
        "to `default`, which other pods have: set jobs.retrain.serviceAccount.name",
    ),
    (
        {"jobs": {"retrain": {"serviceAccount": {"create": False, "name": "fraud-fraud-detection-jobs"}}}},
        "jobs.retrain.serviceAccount.name is also the account of other pods, which must not have the right to "
        "restart: name another one",
    ),
    (
        {"auth": {"existingSecret": "", "requireExistingSecret": True}},
        "auth.requireExistingSecret is true and auth.existingSecret is empty: set auth.existingSecret to a Secret "
        "whose key api-token is the token",
    ),
    (
        {"auth": {"previousTokenKey": "api-token"}},
        "auth.previousTokenKey is the key of the current token: name another one, which need not exist yet",
    ),
    ({"api": {"probePort": 5000}}, "api.probePort is 5000, the port of the API itself: set another one"),
    (
        {"fullnameOverride": "1fraud"},
        "the name 1fraud begins with a digit, which Kubernetes refuses for a Service: set fullnameOverride to a name "
        "that begins with a letter",
    ),
    (
        {"commonLabels": {"app.kubernetes.io/component": "x"}},
        "commonLabels sets app.kubernetes.io/component, by which pods are found: use a label of your own",
    ),
    (
        {"api": {"podLabels": {"fraud-detection.io/data-volume": "x"}}},
        "api.podLabels sets fraud-detection.io/data-volume, by which pods are found: use a label of your own",
    ),
    (
        {"api": {"podAnnotations": {"kubectl.kubernetes.io/restartedAt": "x"}}},
        "api.podAnnotations sets kubectl.kubernetes.io/restartedAt, which the chart or a promotion sets: remove it",
    ),
    (
        {"pushgateway": {"externalUrl": "http://push:9091"}},
        "pushgateway.enabled is true and pushgateway.externalUrl set: set pushgateway.enabled=false to use yours, or "
        "leave pushgateway.externalUrl empty",
    ),
    (
        {"api": {"hpa": {"enabled": True, "minReplicas": 9}}, "database": POSTGRESQL},
        "api.hpa.minReplicas is 9, more than api.hpa.maxReplicas=5: set it lower",
    ),
    (
        {"api": {"ingress": {"enabled": True}}, "networkPolicy": ANYWHERE},
        "api.ingress.enabled is true and api.ingress.hosts is empty: set api.ingress.hosts[0].host to the name that "
        "clients use",
    ),
    (
        {"api": {"httpRoute": {"enabled": True}}, "networkPolicy": ANYWHERE},
        "api.httpRoute.enabled is true and api.httpRoute.parentRefs is empty: set api.httpRoute.parentRefs[0].name "
        "to your Gateway",
    ),
    (
        {"api": {"service": {"type": "LoadBalancer"}}},
        "the API is open to the outside (api.ingress, api.httpRoute or api.service.type), but networkPolicy lets "
        "nobody in from other namespaces: set networkPolicy.ingressFrom to the pods that forward to it, for instance "
        "[{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: ingress-nginx}}}], or to [{ipBlock: {cidr: "
        "0.0.0.0/0}}]",
    ),
]


@pytest.mark.parametrize(("values", "message"), REFUSED, ids=[message.split(",")[0][:60] for _, message in REFUSED])
def test_refuses(helm: Helm, values: dict[str, Any], message: str) -> None:
    assert helm.refusal(values) == f"these values would not work together:\n- {message}"


def test_names_all_that_is_wrong_at_once(helm: Helm) -> None:
    said = helm.refusal({"api": {"replicas": 2, "probePort": 5000}}).splitlines()

    assert [line.split(",")[0] for line in said[1:]] == ["- api.replicas is 2", "- api.probePort is 5000"]


def test_every_refusal_of_the_chart_stands_above() -> None:
    messages = [message for _, message in REFUSED]
    lines = (CHART / "templates" / "_validate.tpl").read_text().splitlines()
    patterns = [re.sub(r"\\{\\{.*?\\}\\}", ".*", re.escape(line[2:])) for line in lines if line.startswith("- ")]

    assert len(patterns) > 20
    assert [pattern for pattern in patterns if not any(re.fullmatch(pattern, message) for message in messages)] == []

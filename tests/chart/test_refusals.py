"""The chart refuses values that would not work, and says what to do instead."""

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
        "api.replicas is 2, but with SQLite only one process may store decisions: set api.replicas=1, or "
        "database.mode=postgresql with database.existingSecret",
    ),
    (
        {"api": {"hpa": {"enabled": True}}},
        "api.hpa.enabled is true, but with SQLite only one process may store decisions: set api.hpa.enabled=false, or "
        "database.mode=postgresql with database.existingSecret",
    ),
    (
        {"persistence": {"models": {"enabled": True}}},
        "persistence.models.enabled is true, but with SQLite the models are beside the database, on one node: set "
        "persistence.models.enabled=false, or database.mode=postgresql with database.existingSecret",
    ),
    (
        {"database": {"mode": "postgresql"}},
        "database.mode is postgresql, but database.existingSecret is empty: set it to a Secret whose key database-url "
        "is postgresql://user:password@host:5432/name",
    ),
    (
        {"persistence": {"accessMode": "ReadWriteMany"}},
        "persistence.accessMode is ReadWriteMany, but that volume holds an SQLite file (decisions, or MLflow's store),"
        " which several nodes can corrupt: set persistence.accessMode=ReadWriteOnce; with PostgreSQL, a separate "
        "ReadWriteMany claim can hold the models (persistence.models.enabled=true)",
    ),
    (
        {
            "persistence": {"accessMode": "ReadWriteOncePod"},
            "jobs": {"backup": {"enabled": True, "existingClaim": "fraud-detection-backups"}},
        },
        "persistence.accessMode is ReadWriteOncePod, so no job can run beside the API: set "
        "persistence.accessMode=ReadWriteOnce, or "
        "jobs.backup.enabled=false,jobs.detectDrift.enabled=false,jobs.retrain.enabled=false",
    ),
    (
        {
            "persistence": {"accessMode": "ReadWriteOncePod"},
            "jobs": NO_JOBS,
            "api": {"updateStrategy": "RollingUpdate"},
        },
        "api.updateStrategy is RollingUpdate, but with persistence.accessMode=ReadWriteOncePod the new pod would wait "
        "forever for the old one: set api.updateStrategy=auto, or persistence.accessMode=ReadWriteOnce",
    ),
    (
        {
            "persistence": {"accessMode": "ReadWriteOncePod"},
            "jobs": NO_JOBS,
            "api": {"replicas": 2},
            "database": POSTGRESQL,
        },
        "the API has several replicas, but persistence.accessMode=ReadWriteOncePod allows one pod: set "
        "persistence.accessMode=ReadWriteOnce, or give the models a separate claim (persistence.models.enabled=true)",
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
        "ReadWriteMany, or to ReadWriteOnce if all of them may run on one node",
    ),
    (
        {
            "persistence": {"existingClaim": "one", "models": {"enabled": True, "existingClaim": "one"}},
            "database": POSTGRESQL,
        },
        "persistence.models.existingClaim is also the claim of the data: name another claim, or set "
        "persistence.models.enabled=false to keep the models there",
    ),
    (
        {
            "persistence": {"existingClaim": "one"},
            "jobs": {"backup": {"enabled": True, "existingClaim": "one"}},
        },
        "jobs.backup.existingClaim is a claim that the job backs up, so data and backups would be lost together: name "
        "another claim, if possible on other disks",
    ),
    (
        {"jobs": {"backup": {"enabled": True}}},
        "jobs.backup.enabled is true, but jobs.backup.existingClaim is empty: set it to a claim that is on other disks"
        " than the data and outlives this release",
    ),
    (
        {"api": {"topologySpreadConstraints": [{"maxSkew": 1}]}},
        "api.topologySpreadConstraints must be satisfied, but a ReadWriteOnce volume keeps the pods on one node: set "
        "whenUnsatisfiable: ScheduleAnyway, or with PostgreSQL give the models a ReadWriteMany claim "
        "(persistence.models.enabled=true)",
    ),
    (
        {"config": {"latestDb": "/srv/requests.db"}},
        "config.latestDb is /srv/requests.db, which is on no volume: name a file in /app/data/",
    ),
    (
        {"config": {"modelPath": "/srv/rf_model.pkl"}},
        "config.modelPath is /srv/rf_model.pkl, which is on no volume: name a file in /app/models/",
    ),
    (
        {"api": {"preStopSleepSeconds": 15}},
        "api.terminationGracePeriodSeconds is 40, but stopping takes up to 45 s (15 for load balancers, 20 for "
        "requests in flight, 10 to close the database): set it to 45 or more",
    ),
    (
        {"api": {"progressDeadlineSeconds": 5}},
        "api.progressDeadlineSeconds is 5, but a pod counts only after api.minReadySeconds=5: set it higher, for "
        "instance to 240",
    ),
    (
        {"api": {"progressDeadlineSeconds": 300}},
        "api.progressDeadlineSeconds is 300 and jobs.retrain.rollout.timeoutSeconds 300, so the job would time out "
        "before Kubernetes reports the reason: lower the first or raise the second",
    ),
    (
        {"jobs": {"retrain": {"activeDeadlineSeconds": 600}}},
        "jobs.retrain.activeDeadlineSeconds is 600, but a rollout and the restoration of the previous version may take"
        " 600 s: add the time of a training",
    ),
    (
        {"jobs": {"retrain": {"serviceAccount": {"create": False}}}},
        "jobs.retrain.serviceAccount.create is false and jobs.retrain.serviceAccount.name is empty, so the right to "
        "restart would go to `default`, the account of other pods: set jobs.retrain.serviceAccount.name",
    ),
    (
        {"jobs": {"retrain": {"serviceAccount": {"create": False, "name": "fraud-fraud-detection-jobs"}}}},
        "jobs.retrain.serviceAccount.name is also the account of other pods, which must not have the right to restart:"
        " name another account",
    ),
    (
        {"auth": {"existingSecret": "", "requireExistingSecret": True}},
        "auth.requireExistingSecret is true and auth.existingSecret is empty: set auth.existingSecret to a Secret "
        "whose key api-token is the token",
    ),
    (
        {"auth": {"previousTokenKey": "api-token"}},
        "auth.previousTokenKey is the key of the current token: name another key, which need not exist yet",
    ),
    (
        {"auth": {"metricsTokenKey": "api-token"}},
        "auth.metricsTokenKey is the key of a token that opens everything: name another key, whose token opens only "
        "/metrics and /model",
    ),
    (
        {"api": {"probePort": 5000}},
        "the pod of Deployment fraud-fraud-detection-api would have port 5000/TCP twice: remove it, or use what "
        "neither you nor the chart uses already",
    ),
    (
        {"fullnameOverride": "1fraud"},
        "the name 1fraud is none that Kubernetes accepts for a Service: set fullnameOverride to a name of lower-case "
        "letters, digits and hyphens that starts with a letter",
    ),
    (
        {"commonLabels": {"app.kubernetes.io/component": "x"}},
        "commonLabels sets app.kubernetes.io/component, which the chart sets itself: use another label",
    ),
    (
        {"jobs": {"retrain": {"podLabels": {"fraud-detection.io/data-volume": "x"}}}},
        "jobs.retrain.podLabels sets fraud-detection.io/data-volume, which the chart sets itself: use another label",
    ),
    (
        {"metrics": {"serviceMonitor": {"labels": {"app.kubernetes.io/part-of": "payments"}}}},
        "metrics.serviceMonitor.labels sets app.kubernetes.io/part-of, which the chart sets itself: use another label",
    ),
    (
        {"pushgateway": {"extraVolumes": [{"name": "data", "emptyDir": {}}]}},
        "the pod of Deployment fraud-fraud-detection-pushgateway would have volume data twice: remove it, or use what "
        "neither you nor the chart uses already",
    ),
    (
        {"extraObjects": [{"kind": "Secret", "stringData": {"url": "postgresql://{{ .user }}@db"}}]},
        "extraObjects[0] has {{ .user }}, which is nothing that the chart knows and would be empty: correct it, or "
        "write {{ `{{ .user }}` }} if another program fills it in",
    ),
    (
        {"pushgateway": {"service": {"labels": {"fraud-detection.io/service": "x"}}}},
        "pushgateway.service.labels sets fraud-detection.io/service, which the chart sets itself: use another label",
    ),
    (
        {"pushgateway": {"extraArgs": ["--log.level=debug", "--persistence.file=/data/other"]}},
        "pushgateway.extraArgs sets --persistence.file=/data/other, which the chart sets: remove it",
    ),
    (
        {"api": {"service": {"externalTrafficPolicy": "Local"}}},
        "api.service.externalTrafficPolicy is set, but Kubernetes rejects it for api.service.type=ClusterIP: set "
        "api.service.type=LoadBalancer, or remove it",
    ),
    (
        {"auth": {"existingSecret": ""}, "metrics": {"serviceMonitor": {"namespace": "watch"}}},
        "metrics.serviceMonitor.namespace is watch, where Prometheus would look for the API's token, but the chart "
        "generates its Secret beside the API: set auth.existingSecret to a Secret that is in both namespaces",
    ),
    (
        {
            "jobs": {"retrain": {"schedule": "@weekly"}},
            "metrics": {"prometheusRule": {"thresholds": {"retrainHours": 9}}},
        },
        "metrics.prometheusRule.thresholds.retrainHours is 9, but jobs.retrain.schedule may leave 168 hours between "
        "two runs, so FraudJobNotRun would fire without a fault: leave the threshold out, or raise it",
    ),
    (
        {"api": {"podAnnotations": {"kubectl.kubernetes.io/restartedAt": "x"}}},
        "api.podAnnotations sets kubectl.kubernetes.io/restartedAt, which the chart or a promotion sets: remove it",
    ),
    (
        {"pushgateway": {"externalUrl": "http://push:9091"}},
        "pushgateway.enabled is true and pushgateway.externalUrl is set: set pushgateway.enabled=false to use your own"
        " Pushgateway, or leave pushgateway.externalUrl empty",
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
        "the API is open to the outside (api.ingress, api.httpRoute or api.service.type), but networkPolicy "
        "blocks clients in other namespaces: set networkPolicy.ingressFrom to the pods that forward to it, for "
        "instance [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: ingress-nginx}}}], or to [{ipBlock: "
        '{cidr: 0.0.0.0/0}}, {ipBlock: {cidr: "::/0"}}]',
    ),
]


@pytest.mark.parametrize(("values", "message"), REFUSED, ids=[message.split(",")[0][:60] for _, message in REFUSED])
def test_refuses(helm: Helm, values: dict[str, Any], message: str) -> None:
    assert helm.refusal(values) == f"these values cannot work together:\n- {message}"


ONLY_ITS_OWN_FILES = {"mlflowTrackingUri": "http://mlflow.mlflow.svc:5000"}
MODELS_APART = {"enabled": True, "accessMode": "ReadWriteMany"}
OPEN = {"service": {"type": "LoadBalancer"}}
NO_RETRAINING = {"retrain": {"enabled": False}}

NO_LONGER_REFUSED: list[dict[str, Any]] = [
    # No SQLite file is on the volume.
    {"database": POSTGRESQL, "config": ONLY_ITS_OWN_FILES, "persistence": {"accessMode": "ReadWriteMany"}},
    {"database": POSTGRESQL, "jobs": NO_JOBS, "persistence": {"accessMode": "ReadWriteMany"}},
    {"database": POSTGRESQL, "config": {"latestDb": "/none/a.db", "trainDb": "/none/b.db"}},
    # No job runs beside the API, or the API is not on that volume.
    {
        "jobs": {"detectDrift": {"suspend": True}, "retrain": {"suspend": True}},
        "persistence": {"accessMode": "ReadWriteOncePod"},
    },
    {"database": POSTGRESQL, "persistence": {"accessMode": "ReadWriteOncePod", "models": MODELS_APART}},
    # Kubernetes may ignore the constraint.
    {"api": {"topologySpreadConstraints": [{"maxSkew": 1, "whenUnsatisfiable": "ScheduleAnyway"}]}},
    # The volume of the user is mounted there, or no job writes the file.
    {
        "config": {"driftResult": "/reports/drift.json"},
        "jobs": {"common": {"extraVolumeMounts": [{"name": "reports", "mountPath": "/reports"}]}},
    },
    {"config": {"driftResult": "/reports/drift.json", "trainDb": "/none/b.db"}, "jobs": NO_JOBS},
    # The chart gives no account the right to restart, or no other pod has the account.
    {"rbac": {"create": False}, "jobs": {"retrain": {"serviceAccount": {"create": False}}}},
    {
        "jobs": {
            "detectDrift": {"enabled": False},
            "fraudctl": {"enabled": False},
            "retrain": {"serviceAccount": {"name": "fraud-fraud-detection-jobs"}},
        }
    },
    # The claim of that name is no claim of the chart.
    {"jobs": {"backup": {"enabled": True, "existingClaim": "fraud-fraud-detection-models"}}},
    # There is no such pod, and no promotion sets the annotation.
    {"jobs": {"retrain": {"enabled": False, "podLabels": {"app.kubernetes.io/name": "x"}}}},
    {
        "pushgateway": {
            "enabled": False,
            "podLabels": {"app.kubernetes.io/name": "x"},
            "extraArgs": ["--persistence.file=x"],
        }
    },
    {
        "api": {"podAnnotations": {"kubectl.kubernetes.io/restartedAt": "x"}},
        "jobs": {"retrain": {"rollout": {"mode": "reload"}}},
    },
    # Other clients get in.
    {"api": OPEN, "networkPolicy": {"extraIngress": [{"ports": [{"port": 5000}]}]}},
    {"api": OPEN, "networkPolicy": {"rules": {"api": {"ingress": [{"ports": [{"port": 5000}]}]}}}},
    {"api": OPEN, "networkPolicy": {"enabled": False}},
    # Prometheus looks for the Secret where it is, or looks for none.
    {"auth": {"existingSecret": ""}, "metrics": {"serviceMonitor": {"namespace": "fraud"}}},
    {"auth": {"existingSecret": ""}, "metrics": {"serviceMonitor": {"namespace": "watch", "enabled": False}}},
    # What would be refused of a feature is not, while the feature is off.
    {"api": {"hpa": {"minReplicas": 9}, "ingress": {"hosts": []}, "httpRoute": {"parentRefs": []}}},
    {"api": {"progressDeadlineSeconds": 300}, "jobs": NO_RETRAINING},
    {"jobs": {"retrain": {"enabled": False, "activeDeadlineSeconds": 60, "serviceAccount": {"create": False}}}},
    {"auth": {"requireExistingSecret": True, "existingSecret": "tokens"}},
]


@pytest.mark.parametrize("values", NO_LONGER_REFUSED)
def test_a_refusal_lasts_as_long_as_its_reason(helm4: Helm, values: dict[str, Any]) -> None:
    assert helm4.render(values)


def test_names_all_that_is_wrong_at_once(helm: Helm) -> None:
    said = helm.refusal({"api": {"replicas": 2, "progressDeadlineSeconds": 5}}).splitlines()

    assert [line.split(",")[0] for line in said[1:]] == ["- api.replicas is 2", "- api.progressDeadlineSeconds is 5"]


def test_every_refusal_of_the_chart_is_tested() -> None:
    messages = [message for _, message in REFUSED]
    lines = (CHART / "templates" / "_validate.tpl").read_text().splitlines()
    patterns = [re.sub(r"\\{\\{.*?\\}\\}", ".*", re.escape(line[2:])) for line in lines if line.startswith("- ")]

    assert len(patterns) > 20
    assert [pattern for pattern in patterns if not any(re.fullmatch(pattern, message) for message in messages)] == []


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"extraEnv": [{"name": "A"}, {"name": "A"}]}, "variable A in container api"),
        ({"extraVolumes": [{"name": "tmp"}]}, "volume tmp"),
        ({"extraVolumes": [{"name": "own"}, {"name": "own"}]}, "volume own"),
        ({"extraVolumeMounts": [{"name": "own", "mountPath": "/app/models"}]}, "mount /app/models in container api"),
        ({"initContainers": [{"name": "bootstrap"}]}, "container bootstrap"),
        ({"sidecars": [{"name": "api"}]}, "container api"),
        ({"initContainers": [{"name": "own"}], "sidecars": [{"name": "own"}]}, "container own"),
        ({"sidecars": [{"name": "own", "env": [{"name": "A"}, {"name": "A"}]}]}, "variable A in container own"),
        ({"sidecars": [{"name": "own", "ports": [{"containerPort": 5000, "protocol": "TCP"}]}]}, "port 5000/TCP"),
        ({"hostAliases": [{"ip": "10.0.0.9"}, {"ip": "10.0.0.9"}]}, "host alias 10.0.0.9"),
    ],
)
def test_refuses_a_part_of_a_pod_that_is_there_twice(helm4: Helm, settings: dict[str, Any], part: str) -> None:
    said = helm4.refusal({"api": settings}).splitlines()[1:]

    assert f"- the pod of Deployment fraud-fraud-detection-api would have {part} twice" in {
        s.split(":")[0] for s in said
    }


@pytest.mark.parametrize(
    "path", ["jobs.common", "jobs.backup", "jobs.detectDrift", "jobs.fraudctl", "jobs.retrain", "tests"]
)
def test_looks_at_every_pod_for_what_is_there_twice(helm4: Helm, path: str) -> None:
    values: Any = {"extraVolumes": [{"name": "own"}, {"name": "own"}]}
    for name in reversed(path.split(".")):
        values = {name: values}
    backup = values.setdefault("jobs", {}).get("backup", {})
    values["jobs"]["backup"] = {"enabled": True, "existingClaim": "backups", **backup}

    said = helm4.refusal(values).splitlines()[1:]

    assert len(said) == (4 if path == "jobs.common" else 1)
    assert all("would have volume own twice" in line for line in said)


@pytest.mark.parametrize(
    ("text", "is_unknown"),
    [
        ("{{ .password }}", True),
        ("{{- .password | quote -}}", True),
        ('{{ printf "%s" .password }}', True),
        ("{{ .Values.global.typo }}", True),
        ("{{ $.Values.api.typo | quote }}", True),
        ("{{ .Values.api.port | quote }} {{ .Release.Name }} {{ .Chart.Version }}", False),
        ('{{ .Values.global.typo | default "none" }}', False),
        ('{{ include "fraud-detection.fullname" . }} {{ (dict "a" 1).a }}', False),
        ('{{ `{{ .password }}` }} {{ "{{ .password }}" }}', False),
        ("{{ with .Values.api }}{{ .port }}{{ end }}", False),
    ],
)
def test_refuses_a_template_that_would_be_emptied(helm4: Helm, text: str, is_unknown: bool) -> None:
    for extra in (
        {"apiVersion": "v1", "kind": "ConfigMap", "data": {"key": text}},
        f"apiVersion: v1\nkind: A\nkey: |\n  {text}",
    ):
        if is_unknown:
            assert f"- extraObjects[0] has {text}, which" in helm4.refusal({"extraObjects": [extra]})
        else:
            assert helm4.render({"extraObjects": [extra]})

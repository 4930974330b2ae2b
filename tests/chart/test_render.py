"""The rendered manifests are the same each time and with each Helm, complete, well named, and as reviewed."""

import copy
import re
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from generate.chart import comparable
from tests.chart.helm import CI, Helm, Manifest, named, pods
from tests.support.project import CHART, ROOT

SNAPSHOT = Path(__file__).parent / "snapshot" / "default.yaml"
EVERYTHING_OF_OPERATORS = ("monitoring.coreos.com/v1", "gateway.networking.k8s.io/v1")
RECOMMENDED = {
    "app.kubernetes.io/name",
    "app.kubernetes.io/instance",
    "app.kubernetes.io/component",
    "app.kubernetes.io/part-of",
    "app.kubernetes.io/managed-by",
    "app.kubernetes.io/version",
    "helm.sh/chart",
}


@pytest.mark.parametrize("ci", CI)
def test_renders_the_same_each_time_and_on_each_major(helm3: Helm, helm4: Helm, ci: str) -> None:
    rendered = [comparable(helm.template(ci=ci, api_versions=EVERYTHING_OF_OPERATORS)) for helm in (helm3, helm4)]

    assert rendered[0] == rendered[1]


def test_only_a_generated_token_differs_between_two_renders(helm: Helm) -> None:
    twice = [
        helm.template({"commonLabels": {}, "auth": {"existingSecret": ""}}),
        helm.template({"auth": {"existingSecret": ""}}),
    ]

    assert twice[0] != twice[1]
    assert comparable(twice[0]) == comparable(twice[1])


@pytest.mark.parametrize("ci", CI)
def test_renders_neither_template_text_nor_empty_fields(helm: Helm, ci: str) -> None:
    for manifest in helm.render(ci=ci, api_versions=EVERYTHING_OF_OPERATORS):
        name = f"{manifest['kind']} {manifest['metadata']['name']}"
        if (
            manifest["kind"] != "PrometheusRule" and "dashboard" not in name
        ):  # those contain templates of Prometheus and Grafana
            assert "{{" not in str(manifest), name
        assert "<no value>" not in str(manifest), name
        assert list(empty_places(manifest)) == [], name


def empty_places(node: Any, path: str = "") -> list[str]:
    """Return the places of fields without a value, where the template lacks an `if` or a `with`."""
    if node is None:
        return [path]
    parts = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [place for name, part in parts for place in empty_places(part, f"{path}.{name}")]


def test_the_defaults_render_what_was_reviewed(helm: Helm) -> None:
    """`make generate` writes the file, so its diff is part of the review. Dashboards are files of their own."""
    rendered = comparable(helm.template({"metrics": {"dashboards": {"enabled": False}}})) + "\n"

    assert SNAPSHOT.read_text() == rendered


@pytest.mark.parametrize("ci", CI)
def test_a_file_makes_one_kind_of_object(helm: Helm, ci: str) -> None:
    kinds: dict[str, set[str]] = {}
    for document in helm.template(ci=ci, api_versions=EVERYTHING_OF_OPERATORS).split("\n---\n"):
        [source] = re.findall(r"(?m)^# Source: (.+)$", document)
        kinds.setdefault(source, set()).add(yaml.load(document, Loader=yaml.CSafeLoader)["kind"])

    assert {source: k for source, k in kinds.items() if len(k) > 1 and "extra-objects" not in source} == {}


@pytest.mark.parametrize("ci", CI)
def test_names_are_unique(helm: Helm, ci: str) -> None:
    names = [(m["kind"], m["metadata"]["name"]) for m in helm.render(ci=ci, api_versions=EVERYTHING_OF_OPERATORS)]

    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("release", "values"),
    [("fraud", {}), ("r" * 53, {}), ("fraud-detection", {}), ("1", {"fullnameOverride": "scores"})],
    ids=["short", "long", "as-the-chart", "number"],
)
def test_every_name_fits_whatever_the_release_is_called(helm: Helm, release: str, values: dict[str, str]) -> None:
    manifests = helm.render(values, ci="full", release=release, api_versions=EVERYTHING_OF_OPERATORS)

    assert len(ours(manifests)) > len(manifests) / 2
    for manifest in ours(manifests):
        name = manifest["metadata"]["name"]
        assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name), name
        assert len(name) <= (
            52 if manifest["kind"] == "CronJob" else 63 if "namespace" in manifest["metadata"] else 253
        )
        for label, value in manifest["metadata"].get("labels", {}).items():
            assert re.fullmatch(r"([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9]", value), (name, label, value)
    assert len({(m["kind"], m["metadata"]["name"]) for m in manifests}) == len(manifests)


def names_of(manifests: list[Manifest]) -> set[tuple[str, str]]:
    return {(m["kind"], m["metadata"]["name"]) for m in ours(manifests)}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("r" * 52 + "a", {}), ("r" * 52 + "b", {})),
        (("r" * 40 + "a", {}), ("r" * 40 + "b", {})),
        (("r", {"fullnameOverride": "r" * 62 + "a"}), ("r", {"fullnameOverride": "r" * 62 + "b"})),
        (("r" * 20, {"nameOverride": "n" * 62 + "a"}), ("r" * 20, {"nameOverride": "n" * 62 + "b"})),
    ],
    ids=["longest", "long", "fullnameOverride", "nameOverride"],
)
def test_a_name_that_is_cut_stays_unique(
    helm4: Helm, one: tuple[str, dict[str, str]], other: tuple[str, dict[str, str]]
) -> None:
    names = [names_of(helm4.render(values, release=release)) for release, values in (one, other)]

    assert names[0] & names[1] == set()
    assert len(names[0]) == len(names[1])


def test_objects_that_hold_something_keep_the_names_that_they_had(helm4: Helm) -> None:
    """Another name of the claim would be an empty store, and one of the Service another address."""
    names = names_of(helm4.render(release="r" * 53))

    for kind, suffix in (("PersistentVolumeClaim", "data"), ("Service", "api"), ("Deployment", "api")):
        cut = ("r" * 53 + "-fraud-detection")[: 62 - len(suffix)].removesuffix("-")
        assert (kind, f"{cut}-{suffix}") in names


def test_refuses_a_release_with_a_dot_which_no_service_can_have(helm4: Helm) -> None:
    assert "the name fraud.eu-fraud-detection is none that Kubernetes accepts" in helm4.refusal({}, release="fraud.eu")
    assert helm4.render({"fullnameOverride": "fraud-eu"}, release="fraud.eu")


def ours(manifests: list[Manifest]) -> list[Manifest]:
    """Return all manifests but the extra objects."""
    return [m for m in manifests if "app.kubernetes.io/part-of" in m["metadata"].get("labels", {})]


def test_a_release_named_after_the_chart_does_not_stutter(helm: Helm) -> None:
    assert named(helm.render(release="fraud-detection"), "Service", "fraud-detection-api")
    assert named(helm.render({"fullnameOverride": "scores"}), "Service", "scores-api")
    assert named(helm.render({"nameOverride": "scores"}), "Service", "fraud-scores-api")


def test_another_namespace_than_that_of_the_release_is_everywhere(helm: Helm) -> None:
    moved = helm.template({"namespaceOverride": "scores"}, ci="full", namespace="releases")

    assert moved == helm.template(ci="full", namespace="scores")


def test_everything_carries_the_recommended_labels(helm: Helm) -> None:
    for manifest in helm.render(api_versions=EVERYTHING_OF_OPERATORS):
        of_a_claim = (
            {"app.kubernetes.io/version", "helm.sh/chart"} if manifest["kind"] == "PersistentVolumeClaim" else set()
        )
        assert RECOMMENDED - set(manifest["metadata"]["labels"]) == of_a_claim, manifest["metadata"]["name"]


LABELLED = {
    "commonLabels": {"team": "risk"},
    "api": {"podLabels": {"pod": "label"}},
    "jobs": {"common": {"podLabels": {"pod": "label"}}},
    "pushgateway": {"podLabels": {"pod": "label"}},
}


KINDS_WITH_A_SELECTOR = {"Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy"}


def selectors(manifests: list[Manifest]) -> dict[str, Any]:
    """Return the selectors of pods by object: no upgrade can change them."""
    chosen = {}
    for manifest in manifests:
        spec = manifest.get("spec", {})
        if manifest["kind"] in KINDS_WITH_A_SELECTOR:
            field = "podSelector" if manifest["kind"] == "NetworkPolicy" else "selector"
            chosen[f"{manifest['kind']} {manifest['metadata']['name']}"] = spec[field]
    return chosen


def test_no_label_of_an_installation_gets_into_a_selector(helm: Helm) -> None:
    plain = helm.render(ci="full", api_versions=EVERYTHING_OF_OPERATORS)
    labelled = helm.render(LABELLED, ci="full", api_versions=EVERYTHING_OF_OPERATORS)

    assert selectors(labelled) == selectors(plain)
    assert {name.split()[0] for name in selectors(plain)} == KINDS_WITH_A_SELECTOR
    for chosen in selectors(plain).values():
        assert set(chosen.get("matchLabels", chosen)) == {
            "app.kubernetes.io/name",
            "app.kubernetes.io/instance",
            "app.kubernetes.io/component",
        }


def test_labels_of_an_installation_are_everywhere_and_replace_none_of_ours(helm: Helm) -> None:
    plain, labelled = helm.render(), helm.render(LABELLED)

    for before, after in zip(plain, labelled, strict=True):
        assert after["metadata"]["labels"] == {"team": "risk"} | before["metadata"]["labels"]
    for before_pod, after_pod in zip(pods(plain), pods(labelled), strict=True):
        more = set(after_pod.metadata["labels"].items()) - set(before_pod.metadata["labels"].items())
        assert {("team", "risk")} <= more <= {("team", "risk"), ("pod", "label")}, after_pod.owner


def test_annotations_of_an_installation_are_on_everything_but_pods(helm: Helm) -> None:
    for manifest in helm.render({"commonAnnotations": {"team": "risk"}}):
        if manifest["kind"] != "Pod":
            assert manifest["metadata"]["annotations"]["team"] == "risk", manifest["metadata"]["name"]


def test_extra_objects_are_templates_as_maps_and_as_texts(helm: Helm) -> None:
    objects = [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{ .Release.Name }}-map"}},
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {{ .Release.Name }}-text\n",
    ]
    manifests = helm.render({"extraObjects": copy.deepcopy(objects)})

    assert named(manifests, "ConfigMap", "fraud-map")
    assert named(manifests, "ConfigMap", "fraud-text")


def test_extra_objects_keep_what_is_written(helm: Helm) -> None:
    """Also in lines so long that YAML would fold them inside of a template."""
    dsn = "host=db.payments.internal.example.com port=5432 dbname=fraud user={{ .user }} password={{ .password }}"
    written: Manifest = {
        "kind": "Secret",
        "metadata": {"name": "{{ .Release.Name }}-db", "labels": {"{{ .Release.Name }}": "a", "b": "1"}},
        "stringData": {"dsn": re.sub(r"({{.*?}})", r'{{ "\1" }}', dsn), "lines": "a: {{ .Release.Name }}\nb: '<&>'\n"},
        "list": [1000000, 0.5, True, None, [], {}, "{{ .Values.api.port }}"],
    }

    assert named(helm.render({"extraObjects": [written]}), "Secret", "fraud-db") == {
        "kind": "Secret",
        "metadata": {"name": "fraud-db", "labels": {"fraud": "a", "b": "1"}},
        "stringData": {"dsn": dsn, "lines": "a: fraud\nb: '<&>'\n"},
        "list": [1000000, 0.5, True, None, [], {}, "5000"],
    }


def test_an_upgrade_that_reuses_the_values_of_the_chart_before_renders(helm: Helm, tmp_path: Path) -> None:
    """With --reuse-values, Helm renders our templates with the defaults of the old chart."""
    with tarfile.open(ROOT / "tests" / "e2e" / "chart_before.tar.xz") as before:
        before.extractall(tmp_path / "before", filter="data")
    shutil.copytree(CHART, tmp_path / "now")
    shutil.copy(tmp_path / "before" / "charts" / "fraud-detection" / "values.yaml", tmp_path / "now")

    for manifest in helm.render(chart=tmp_path / "now"):
        assert list(empty_places(manifest)) == [], manifest["metadata"]["name"]


def test_refuses_a_cluster_that_is_too_old(helm: Helm) -> None:
    said = helm.run(
        "template", "x", str(SNAPSHOT.parents[3] / "charts" / "fraud-detection"), "--kube-version", "1.29.9"
    ).stderr

    assert "chart requires kubeVersion: >=1.30.0-0 which is incompatible with Kubernetes v1.29.9" in said


@pytest.mark.parametrize("version", ["1.30.0", "1.33.1-eks-1234567", "1.34.4-gke.100"])
def test_takes_the_versions_of_managed_clusters(helm: Helm, version: str) -> None:
    assert helm.render(kube_version=version)

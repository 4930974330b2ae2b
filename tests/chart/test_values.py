"""Every value is documented, in the schema and used; templates read no other, and a typo is refused."""

import json
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import jsonschema
import pytest
import yaml

from fraud_detection.environment import BadSetting
from fraud_detection.settings import ApiSettings, JobSettings
from generate.chart import ToolMissing, readme
from tests.chart.helm import CI, Helm
from tests.support.environment import TOKEN
from tests.support.programs import skip_or_fail
from tests.support.project import CHART

VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
TEMPLATES = {path: path.read_text() for path in sorted((CHART / "templates").rglob("*")) if path.is_file()}
OF_A_PARENT_CHART = {"enabled"}  # Helm adds the condition of a dependency to our values


def leaves(values: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every value that has none of our values below it, with its path."""
    if isinstance(values, dict) and values:
        for name, value in values.items():
            yield from leaves(value, (*path, name))
    else:
        yield path, values


def schema_of(path: tuple[str, ...]) -> dict[str, Any] | None:
    """Return the schema of one value; None inside what Kubernetes defines and we pass on."""
    schema = SCHEMA
    for name in path:
        if "properties" not in schema:
            return None
        schema = schema["properties"][name]
    return schema


def test_the_defaults_fit_the_schema() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)

    assert list(jsonschema.Draft7Validator(SCHEMA).iter_errors(VALUES)) == []


def test_the_schema_has_the_keys_of_the_values() -> None:
    def compare(schema: dict[str, Any], values: Any, path: str) -> list[str]:
        if not isinstance(values, dict) or not values or "properties" not in schema:
            return []
        different = set(schema["properties"]) ^ set(values)
        if re.fullmatch(r"\.jobs\.\w+", path) and "enabled" in values:  # a job, which also takes the values of all jobs
            different -= set(VALUES["jobs"]["common"])
        below = [compare(schema["properties"][k], v, f"{path}.{k}") for k, v in values.items() if k not in different]
        return [f"{path}.{name}" for name in different] + [place for places in below for place in places]

    assert set(compare(SCHEMA, VALUES, "")) == {f".{name}" for name in OF_A_PARENT_CHART}


def test_the_schema_is_draft_07_closed_and_refers_to_itself_alone() -> None:
    def parts(node: Any) -> Iterator[dict[str, Any]]:
        if isinstance(node, dict):
            yield node
        for part in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            yield from parts(part)

    assert SCHEMA["$schema"] == "http://json-schema.org/draft-07/schema#"
    assert {
        ref for p in parts(SCHEMA) if not (ref := p.get("$ref", "#/definitions/")).startswith("#/definitions/")
    } == set()
    open_ones = [
        p
        for p in parts(SCHEMA)
        if p.get("type") == "object" and "properties" in p and p["additionalProperties"] is not False
    ]
    of_kubernetes = ("extraEnv", "extraVolumes", "extraVolumeMounts")
    passed_on = [SCHEMA["properties"]["api"]["properties"][name]["items"] for name in of_kubernetes]
    # A parent chart sets `global` for all of its charts.
    assert [p for p in open_ones if p not in passed_on] == [SCHEMA["properties"]["global"]]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"persistance": {"size": "1Gi"}}, "at '': additional properties 'persistance' not allowed"),
        ({"api": {"replica": 1}}, "at '/api': additional properties 'replica' not allowed"),
        ({"api": {"replicas": "two"}}, "at '/api/replicas': got string, want null or integer"),
        ({"api": {"replicas": -1}}, "at '/api/replicas': minimum: got -1, want 0"),
        ({"config": {"fraudThreshold": 2}}, "at '/config/fraudThreshold': maximum: got 2, want 0.999"),
        (
            {"image": {"api": {"digest": "sha256:abc"}}},
            "at '/image/api/digest': 'sha256:abc' does not match pattern '^(sha256:[a-f0-9]{64})?$'",
        ),
        (
            {"api": {"updateStrategy": "Rolling"}},
            "at '/api/updateStrategy': value must be one of 'auto', 'Recreate', 'RollingUpdate'",
        ),
        ({"database": {"mode": "mysql"}}, "at '/database/mode': value must be one of 'sqlite', 'postgresql'"),
        ({"features": [{"min": 0, "name": "x"}]}, "at '/features/0': additional properties 'min' not allowed"),
        (
            {"api": {"serviceAccount": {"name": "API"}}},
            "at '/api/serviceAccount/name': 'API' does not match pattern '^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?)?$'",
        ),
        (
            {"commonLabels": {"team": "a b"}},
            "at '/commonLabels/team': 'a b' does not match pattern "
            "'^([A-Za-z0-9]([-._A-Za-z0-9]{0,61}[A-Za-z0-9])?)?$'",
        ),
        (
            {"jobs": {"retrain": {"sidecars": [{"name": "The_Proxy"}]}}},
            "at '/jobs/retrain/sidecars/0/name': 'The_Proxy' does not match pattern "
            "'^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$'",
        ),
        ({"api": {"resources": {"limit": {}}}}, "at '/api/resources': additional properties 'limit' not allowed"),
    ],
)
def test_the_schema_refuses(helm: Helm, values: dict[str, Any], message: str) -> None:
    """The messages are those of Helm 3.18 and newer; 3.17 refuses the same values in other words."""
    assert helm.refusal(values) == (
        "Error: values don't meet the specifications of the schema(s) in the following chart(s):\n"
        f"fraud-detection:\n- {message}"
    )


@pytest.mark.parametrize("name", ["labels", "annotations", "podLabels", "nodeSelector"])
def test_the_schema_refuses_a_key_that_no_label_can_have(helm4: Helm, name: str) -> None:
    said = helm4.refusal({"api": {name: {"a key": "x"}}})

    assert re.search("'a key' does not match pattern", said)


def test_takes_the_values_that_a_parent_chart_adds(helm: Helm) -> None:
    assert helm.render({"global": {"storageClass": "fast"}, "enabled": True})


def variable_of(name: str) -> str:
    return re.sub(r"(?=[A-Z])", "_", name).upper()


@pytest.mark.parametrize("name", [name for name, value in VALUES["config"].items() if type(value) in {int, float}])
def test_the_schema_allows_the_numbers_that_the_programs_take(name: str) -> None:
    schema = SCHEMA["properties"]["config"]["properties"][name]
    variable = variable_of(name)
    reads = next(s for s in (JobSettings, ApiSettings) if variable in {v.name for v in s.variables()})

    for limit, beyond in ((schema["minimum"], -1), (schema["maximum"], 1)):
        reads.from_env({"API_TOKEN": TOKEN, variable: str(limit)})
        with pytest.raises(BadSetting, match=variable):
            reads.from_env({"API_TOKEN": TOKEN, variable: str(limit + beyond)})


def test_every_value_has_a_reason() -> None:
    """A comment `# --` at the value, or at a group of values that Kubernetes defines."""
    undocumented, commented = [], {}
    path: list[str] = []
    comment = ""
    for line in (CHART / "values.yaml").read_text().splitlines():
        if match := re.match(r"( *)([A-Za-z]+):", line):
            path[len(match[1]) // 2 :] = [match[2]]
            commented[tuple(path)] = comment.startswith("# -- ")
        comment = comment or line.strip() if line.strip().startswith("#") else ""
    for leaf, _ in leaves(VALUES):
        if not any(commented.get(leaf[:depth]) for depth in range(1, len(leaf) + 1)):
            undocumented.append(".".join(leaf))

    assert undocumented == []


def test_every_value_that_is_read_is_declared() -> None:
    read = {
        (path.name, dotted)
        for path, text in TEMPLATES.items()
        for dotted in re.findall(r"\.Values((?:\.[A-Za-z]\w*)+)", text)
    }

    assert {dotted.split(".")[1] for _, dotted in read} >= {"api", "jobs", "config", "metrics"}
    for file, dotted in read:
        values = VALUES
        for name in dotted.split(".")[1:]:
            assert name in values, f"{file}: .Values{dotted}"
            values = values[name] if isinstance(values[name], dict) else {}


def test_every_field_of_a_template_is_a_value_or_an_argument() -> None:
    """A template reads a value that is its argument without the word Values, so a typo in it would go unseen."""
    keys = {name for path, _ in leaves(VALUES) for name in path}
    arguments = {name for text in TEMPLATES.values() for name in re.findall(r'"([a-z]\w*)"', text)}
    of_lists = {"host", "path", "paths", "pathType", "minimum", "maximum", "alert", "groups", "rules", "data", "scheme"}
    of_lists |= {
        "kind",
        "metadata",
        "ports",
        "containerPort",
        "protocol",
        "mountPath",
        "whenUnsatisfiable",
        "ephemeral",
    }
    for path, text in TEMPLATES.items():
        without_texts = re.sub(r'"[^"]*"|{{-? ?/\*.*?\*/ ?-?}}', "", text, flags=re.DOTALL)
        code = " ".join(re.findall(r"{{.*?}}", without_texts, re.DOTALL))
        assert code, path.name
        assert set(re.findall(r"(?<=\.)[a-z]\w*", code)) - keys - arguments - of_lists == set(), path.name


@cache
def rendered(helm: Helm, ci: str, change: str) -> str:
    command = ["template", "fraud", str(CHART), "--skip-schema-validation"]
    done = helm.run(*command, "--values", str(CHART / "ci" / f"{ci}-values.yaml"), "--values", "-", stdin=change)
    return done.stdout + done.stderr


def changes(path: tuple[str, ...], default: Any) -> Iterator[Any]:
    """Yield other values of the same type that this value could have."""
    choices = (schema_of(path) or {}).get("enum")
    if choices:
        yield from (choice for choice in choices if choice != default)
    elif isinstance(default, bool):
        yield not default
    elif isinstance(default, int | float):
        yield default + 7
    elif isinstance(default, list):
        yield [{"name": "sentinel", "host": "sentinel"}]
        yield ["sentinel"]
    elif isinstance(default, dict):
        yield {name: {} for name in (schema_of(path) or {}).get("properties", {})} or {"sentinel": "sentinel"}
    else:
        yield "31234" if path[-1] == "nodePort" else "sentinel"


def is_used(helm: Helm, path: tuple[str, ...], default: Any) -> bool:
    for ci in ("full", *CI):
        for change in changes(path, default):
            value = change
            for name in reversed(path):
                value = {name: value}
            if rendered(helm, ci, json.dumps(value)) != rendered(helm, ci, "{}"):
                return True
    return False


def test_every_value_changes_something(helm4: Helm) -> None:
    """One value is left out: it only refuses, and test_refusals.py tests it."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        used = list(pool.map(lambda leaf: is_used(helm4, *leaf), leaves(VALUES)))

    unused = [".".join(path) for (path, _), it_is in zip(leaves(VALUES), used, strict=True) if not it_is]
    assert unused == ["auth.requireExistingSecret"]


def test_the_readme_is_what_helm_docs_makes_of_the_values() -> None:
    try:
        expected = readme()
    except ToolMissing as missing:
        skip_or_fail(str(missing))

    assert (CHART / "README.md").read_text() == expected

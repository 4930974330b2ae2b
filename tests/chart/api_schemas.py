"""Check a manifest as an API server would: Kubernetes' own kinds in every version, and those of two operators."""

import functools
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

from tests.chart.helm import Manifest
from tests.support.programs import skip_or_fail

VERSIONS = sorted(
    {version for version in kubernetes_validate.utils.all_versions() if int(version.split(".")[1]) >= 30},
    key=lambda version: [int(part) for part in version.split(".")],
)
MODULES = {
    "monitoring.coreos.com": (
        "github.com/prometheus-operator/prometheus-operator@v0.85.0",
        "example/prometheus-operator-crd",
    ),
    "gateway.networking.k8s.io": ("sigs.k8s.io/gateway-api@v1.3.0", "config/crd/standard"),
}

# Without the cache, the validator would read a megabyte of definitions for every manifest.
kubernetes_validate.utils.schema_contents = functools.cache(kubernetes_validate.utils.schema_contents)


def complaint(manifest: Manifest, kubernetes: str) -> str | None:
    """Return what is wrong with this manifest for this version of Kubernetes, unknown fields included."""
    group, _, version = manifest["apiVersion"].rpartition("/")
    if group in MODULES:
        errors = jsonschema.Draft202012Validator(_of_a_crd(group, version, manifest["kind"])).iter_errors(manifest)
        return next((f"{error.json_path}: {error.message}" for error in errors), None)
    return _complaint_of_kubernetes(json.dumps(manifest), kubernetes)


@functools.cache  # many renders give the same manifest
def _complaint_of_kubernetes(manifest: str, version: str) -> str | None:
    try:
        kubernetes_validate.validate(json.loads(manifest), version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return f"{error.json_path}: {error.message}"
    return None


@functools.cache
def _of_a_crd(group: str, version: str, kind: str) -> dict[str, Any]:
    module, folder = MODULES[group]
    [path] = (_download(module) / folder).glob(f"{group}_{kind.lower()}s.yaml")
    definition = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    [schema] = [
        served["schema"]["openAPIV3Schema"] for served in definition["spec"]["versions"] if served["name"] == version
    ]
    whole: dict[str, Any] = closed(schema)
    return whole


@functools.cache
def _download(module: str) -> Path:
    go = shutil.which("go")
    if go is None:
        skip_or_fail(f"the schemas of {module} come from its Go module, and Go is not installed (https://go.dev/dl)")
    done = subprocess.run([str(go), "mod", "download", "-json", module], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        skip_or_fail(f"{module} cannot be downloaded: {done.stdout}{done.stderr}")
    return Path(json.loads(done.stdout)["Dir"])


def closed(schema: Any) -> Any:
    """Return the schema without unknown fields, which the API server would drop and `kubectl --validate` refuse."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    with_closed_parts = {name: closed(part) for name, part in schema.items()}
    is_object = schema.get("type") == "object" and "properties" in schema
    if is_object and not schema.get("x-kubernetes-preserve-unknown-fields"):
        return {"additionalProperties": False, **with_closed_parts}
    return with_closed_parts

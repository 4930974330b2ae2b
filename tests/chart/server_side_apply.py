"""Say why server-side apply would refuse a manifest: a key twice in a map, or twice in a list that has keys."""

import functools
from collections.abc import Iterator
from typing import Any

import kubernetes_validate
import yaml

from tests.chart.api_schemas import VERSIONS
from tests.chart.helm import Manifest


class _StrictLoader(yaml.CSafeLoader):
    """Refuses a map that has one key twice, of which others silently take the last."""


def _map(loader: _StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key) for key, _ in node.value]
    assert len(set(keys)) == len(keys), f"one key twice in {sorted(keys)}{node.start_mark}"
    return dict(loader.construct_pairs(node))


_StrictLoader.add_constructor("tag:yaml.org,2002:map", _map)


def strictly_parsed(text: str) -> list[Manifest]:
    """Return the manifests that `helm template` printed; no map may have one key twice."""
    return [manifest for manifest in yaml.load_all(text, Loader=_StrictLoader) if manifest]


def duplicates(manifest: Manifest) -> list[str]:
    """Return the keys that are twice in a list which the API server merges by keys; none in kinds of operators."""
    group, _, version = manifest["apiVersion"].rpartition("/")
    kind = {"group": group, "version": version, "kind": manifest["kind"]}
    schemas = [s for s in _definitions().values() if kind in s.get("x-kubernetes-group-version-kind", [])]
    return [said for schema in schemas for said in _duplicates(manifest, schema, manifest["kind"])]


def _duplicates(value: Any, schema: dict[str, Any], path: str) -> Iterator[str]:
    if "$ref" in schema:
        schema = _definitions()[schema["$ref"].rpartition("/")[2]]
    if isinstance(value, list):
        keys = schema.get("x-kubernetes-list-map-keys", [])
        ids = [tuple(element.get(key) for key in keys) for element in value] if keys else []
        yield from (f"{path}: {dict(zip(keys, i, strict=True))} twice" for i in set(ids) if ids.count(i) > 1)
        for element in value:
            yield from _duplicates(element, schema.get("items", {}), path)
    elif isinstance(value, dict):
        for name, part in value.items():
            yield from _duplicates(part, schema.get("properties", {}).get(name, {}), f"{path}.{name}")


@functools.cache
def _definitions() -> dict[str, dict[str, Any]]:
    """Return the types of the newest Kubernetes by name."""
    file = f"kubernetes-json-schema/v{VERSIONS[-1]}-local-strict/_definitions.json"
    found: dict[str, dict[str, Any]] = kubernetes_validate.utils.schema_contents(file, VERSIONS[-1])["$defs"]
    return found

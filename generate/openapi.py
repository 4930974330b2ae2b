"""Copy docs/openapi.yaml as JSON, because the API reads no YAML."""

import json
from pathlib import Path

import yaml

_SOURCE = Path(__file__).parent.parent / "docs" / "openapi.yaml"


def openapi_document() -> str:
    """Return the OpenAPI document as JSON."""
    return json.dumps(yaml.safe_load(_SOURCE.read_text(encoding="utf-8")), indent=1) + "\n"

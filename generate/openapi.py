"""Derive from docs/openapi.yaml its JSON, because the API reads no YAML, and the table of endpoints."""

import json
from pathlib import Path
from typing import Any

import yaml

from generate.sections import replaced

_DOCS = Path(__file__).parent.parent / "docs"


def openapi_document() -> str:
    """Return the OpenAPI document as JSON."""
    return json.dumps(_document(), indent=1) + "\n"


def clients() -> str:
    """Return docs/clients.md with a new table of endpoints."""
    rows = [
        f"| `{method.upper()} {path}` | {'no' if operation.get('security') == [] else 'yes'} | {operation['summary']} |"
        for path, operations in _document()["paths"].items()
        for method, operation in operations.items()
    ]
    table = "\n".join(["| Endpoint | Token | What it does |", "|---|---|---|", *rows])
    return replaced(_DOCS / "clients.md", r"^\| Endpoint \|.*?(?=^$)", f"{table}\n")


def _document() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((_DOCS / "openapi.yaml").read_text(encoding="utf-8"))
    return document

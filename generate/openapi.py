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
        f"| `{method.upper()} {path}` | {_needs(operation)} | {operation['summary']} |"
        for path, operations in _document()["paths"].items()
        for method, operation in operations.items()
    ]
    table = "\n".join(["| Endpoint | Scope of the token | What it does |", "|---|---|---|", *rows])
    return replaced(_DOCS / "clients.md", r"^\| Endpoint \|.*?(?=^$)", f"{table}\n")


def _needs(operation: dict[str, Any]) -> str:
    security = operation.get("security", [{"token": []}])
    if not security:
        return "no token"
    return ", ".join(f"`{scope}`" for scope in security[0]["token"]) or "any"


def _document() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((_DOCS / "openapi.yaml").read_text(encoding="utf-8"))
    return document

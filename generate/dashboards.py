"""Render Grafana's dashboards from the descriptions in panels/."""

import json
from pathlib import Path
from typing import Any

import yaml

Json = dict[str, Any]

_PANELS = Path(__file__).parent / "panels"
_KINDS: Json = yaml.safe_load((_PANELS / "kinds.yaml").read_text(encoding="utf-8"))
_NUMBERS = ["unit", "decimals", "min", "max"]
_KEYS = {"title", "kind", "about", "size", "thresholds", "values", "colours", "series", "query", "queries", "options"}
_DATA_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def dashboard(name: str) -> str:
    """Return the JSON of the dashboard that panels/NAME.yaml describes."""
    described = yaml.safe_load((_PANELS / f"{name}.yaml").read_text(encoding="utf-8"))
    board = _KINDS["dashboard"] | {
        "description": described["about"],
        "panels": _placed(described["rows"]),
        "refresh": described["refresh"],
        "time": {"from": described["since"], "to": "now"},
        "title": f"Fraud detection / {described['title']}",
        "uid": f"fraud-detection-{name}",
    }
    text = json.dumps(dict(sorted(board.items())), indent=2, ensure_ascii=False) + "\n"
    return text.replace("$installation", json.dumps(_KINDS["installation"])[1:-1])


def _placed(rows: list[Json]) -> list[Json]:
    """Place the panels of each row from left to right, line below line; a panel's id is its place."""
    panels: list[Json] = []
    bottom = 0
    for row in rows:
        if "title" in row:
            heading = {"h": 1, "w": 24, "x": 0, "y": bottom}
            panels.append({"collapsed": False, "gridPos": heading, "panels": [], "title": row["title"], "type": "row"})
            bottom += 1
        x, y = 0, bottom
        for described in row["panels"]:
            width, height = described.get("size", row["size"])
            if x + width > 24:
                x, y = 0, bottom
            panels.append(_panel(described, {"h": height, "w": width, "x": x, "y": y}))
            x, bottom = x + width, max(bottom, y + height)
    return [{**panel, "id": number} for number, panel in enumerate(panels, start=1)]


def _panel(described: Json, place: Json) -> Json:
    if unknown := described.keys() - _KEYS.union(_NUMBERS):
        raise ValueError(f"panel {described['title']!r}: no such key: {', '.join(sorted(unknown))}")
    panel = _merged(_KINDS["kinds"][described["kind"]], described)
    if "thresholds" in described:
        panel = _merged(panel, panel.get("with_thresholds", {}))
    lowest, *bounds = panel.get("thresholds", ["green"])
    steps = [(None, lowest), *zip(bounds[::2], bounds[1::2], strict=True)]
    defaults: Json = {
        "color": {"mode": panel["colouring"]},
        "mappings": _mappings(panel["values"]) if "values" in panel else [],
        "thresholds": {"mode": "absolute", "steps": [{"color": _colour(c), "value": bound} for bound, c in steps]},
        **{key: panel[key] for key in [*_NUMBERS, "custom"] if key in panel},
    }
    series = {name: _coloured(panel["type"], colour) for name, colour in panel.get("colours", {}).items()}
    queries = panel["queries"] if "queries" in panel else {"": panel["query"]}
    return {
        "datasource": _DATA_SOURCE,
        "description": panel["about"],
        "fieldConfig": {
            "defaults": defaults,
            "overrides": [
                {
                    "matcher": {"id": "byName", "options": name},
                    "properties": [{"id": key, "value": value} for key, value in properties.items()],
                }
                for name, properties in (series | panel.get("series", {})).items()
            ],
        },
        "gridPos": place,
        "options": panel["options"],
        "targets": [
            _target(panel["asks"], letter, legend, query)
            for letter, (legend, query) in zip("ABCDEFGH", queries.items(), strict=False)
        ],
        "title": panel["title"],
        "type": panel["type"],
    }


def _target(asks: Json, letter: str, legend: str, query: str) -> Json:
    target = {"datasource": _DATA_SOURCE, "editorMode": "code", "expr": query, "legendFormat": legend, "refId": letter}
    return dict(sorted((target | asks).items()))


def _coloured(panel_type: str, colour: str) -> Json:
    """Return the properties that give one series a colour; in a timeline the colour stands for the value 1."""
    if panel_type == "state-timeline":
        return {"mappings": _mappings({"no": "transparent", "yes": colour})}
    return {"color": {"fixedColor": _colour(colour), "mode": "fixed"}}


def _mappings(words: dict[str, str | None]) -> list[Json]:
    """Return what Grafana writes instead of 0 and 1, in which colours."""
    shown = {
        str(value): ({"color": _colour(colour)} if colour else {}) | {"index": value, "text": text}
        for value, (text, colour) in enumerate(words.items())
    }
    return [{"type": "value", "options": shown}]


def _colour(name: str) -> str:
    colour: str = _KINDS["colours"].get(name, name)
    return colour


def _merged(below: Json, above: Json) -> Json:
    """Return both; where both are mappings they are merged, else `above` wins."""
    merged = dict(below)
    for key, value in above.items():
        merged[key] = _merged(below[key], value) if isinstance(value, dict) and key in below else value
    return merged

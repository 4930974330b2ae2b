"""A few lines become a panel, and a word that means nothing is refused."""

import json
from typing import Any

import pytest
import yaml

from generate import dashboards
from generate.dashboards import dashboard

HEAD = "title: Made up\nabout: Nothing.\nrefresh: 5m\nsince: now-1h\nrows:\n"


@pytest.fixture
def rendered(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Any:
    """The panels of a dashboard with these rows."""
    monkeypatch.setattr(dashboards, "_PANELS", tmp_path)

    def render(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        (tmp_path / "made_up.yaml").write_text(HEAD + yaml.safe_dump(rows))
        found: list[dict[str, Any]] = json.loads(dashboard("made_up"))["panels"]
        return found

    return render


def panel(**more: Any) -> dict[str, Any]:
    return {"title": "Rows", "kind": "area", "about": "Rows.", "query": "sum(rows{$installation})"} | more


def test_a_panel_asks_for_the_installation_that_is_chosen(rendered: Any) -> None:
    [made] = rendered([{"size": [12, 8], "panels": [panel(unit="short")]}])

    assert made["targets"][0]["expr"] == 'sum(rows{namespace=~"$namespace", service=~"$release.*"})'
    assert (made["type"], made["fieldConfig"]["defaults"]["unit"]) == ("timeseries", "short")


def test_thresholds_are_colours_with_the_bounds_between_them(rendered: Any) -> None:
    [made] = rendered([{"size": [12, 8], "panels": [panel(thresholds=["green", 3, "yellow", 5, "red"])]}])

    defaults = made["fieldConfig"]["defaults"]
    assert [(step["value"], step["color"]) for step in defaults["thresholds"]["steps"]] == [
        (None, "green"),
        (3, "#EAB839"),
        (5, "red"),
    ]
    assert defaults["custom"]["thresholdsStyle"] == {"mode": "dashed"}


def test_panels_stand_from_left_to_right_and_line_below_line(rendered: Any) -> None:
    made = rendered(
        [
            {"size": [12, 4], "panels": [panel(), panel(size=[12, 6]), panel()]},
            {"title": "More", "size": [24, 8], "panels": [panel()]},
        ]
    )

    places = [tuple(each["gridPos"][side] for side in "xywh") for each in made]
    assert places == [(0, 0, 12, 4), (12, 0, 12, 6), (0, 6, 12, 4), (0, 10, 24, 1), (0, 11, 24, 8)]
    assert [each["id"] for each in made] == [1, 2, 3, 4, 5]


def test_a_timeline_is_coloured_while_its_value_is_1(rendered: Any) -> None:
    [made] = rendered([{"size": [12, 8], "panels": [panel(kind="timeline", colours={"failed": "red"})]}])

    [override] = made["fieldConfig"]["overrides"]
    [mapping] = override["properties"][0]["value"]
    assert override["matcher"]["options"] == "failed"
    assert {value: words["color"] for value, words in mapping["options"].items()} == {"0": "transparent", "1": "red"}


def test_a_key_that_means_nothing_is_refused(rendered: Any) -> None:
    with pytest.raises(ValueError, match="panel 'Rows': no such key: treshold"):
        rendered([{"size": [12, 8], "panels": [panel(treshold=["red"])]}])

"""A few lines become a panel, and an unknown key is refused."""

import json
import re
from typing import Any

import pytest
import yaml

from fraud_detection.settings import JobSettings
from generate import dashboards
from generate.dashboards import dashboard
from jobs.drift.compare import DRIFTED_ALERT_RATIO, MANY_WARNED, SCORE_PSI_DRIFT, SCORE_PSI_WARN, compare
from jobs.drift.distance import DRIFTED_D, WARNED_D
from tests.support.alert_rules import thresholds

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


def alerts_at(threshold: str) -> float:
    """Return the default of a threshold of the alerts."""
    return float(thresholds()[threshold])


HOUR, DAY, MEBIBYTE = 3600, 86400, 1 << 20


@pytest.mark.parametrize(
    ("name", "title", "bound"),
    [
        ("drift", "Features warned", MANY_WARNED),
        ("drift", "Largest distance", WARNED_D),
        ("drift", "Largest distance", DRIFTED_D),
        ("drift", "Distance of features", WARNED_D),
        ("drift", "Distance of features", DRIFTED_D),
        ("drift", "Alert rate", DRIFTED_ALERT_RATIO),
        ("drift", "Alert rate", round(1 / DRIFTED_ALERT_RATIO, 3)),
        ("drift", "Alert rate: now and when judged", DRIFTED_ALERT_RATIO),
        ("drift", "Alert rate: now and when judged", round(1 / DRIFTED_ALERT_RATIO, 3)),
        ("drift", "Score PSI", SCORE_PSI_WARN),
        ("drift", "Score PSI", SCORE_PSI_DRIFT),
        ("drift", "Since each job last succeeded", alerts_at("detectDriftHours") * HOUR),
        ("model", "Age", alerts_at("modelAgeDays") * DAY),
        ("model", "Rejections in a row", alerts_at("gateRefusals")),
        ("model", "Frauds in the hold-out", JobSettings.from_env({}).gate_min_frauds),
        ("model", "Transactions with a true label, by age", alerts_at("labelCoverageRatio")),
        ("model", "Since retraining last succeeded", alerts_at("retrainHours") * HOUR),
        ("service", "99 % of scores within", alerts_at("latencySeconds")),
        ("service", "Failed requests", alerts_at("errorRatio")),
        ("service", "Scores: median and the upper end", JobSettings.from_env({}).fraud_threshold),
        ("service", "Time of a scoring request", alerts_at("latencySeconds")),
        ("service", "Share of failed requests", alerts_at("errorRatio")),
        ("service", "Queue of the writer", alerts_at("queueRequests")),
        ("service", "Write-ahead log", alerts_at("walMebibytes") * MEBIBYTE),
        ("service", "Free space", alerts_at("volumeFreeRatio")),
    ],
)
def test_a_colour_changes_where_the_code_or_an_alert_decides(name: str, title: str, bound: float) -> None:
    found = [each for each in json.loads(dashboard(name))["panels"] if each["title"] == title]

    assert found
    for each in found:
        assert bound in {step["value"] for step in each["fieldConfig"]["defaults"]["thresholds"]["steps"]}


def test_texts_about_drift_give_the_bounds_of_the_code() -> None:
    shares = (WARNED_D, DRIFTED_D, SCORE_PSI_WARN, SCORE_PSI_DRIFT, 1 / DRIFTED_ALERT_RATIO)
    abouts = " ".join(each.get("description", "") for each in json.loads(dashboard("drift"))["panels"])

    assert set(re.findall(r"\d\.\d+", abouts)) == {f"{share:.2f}" for share in shares} | {f"{DRIFTED_ALERT_RATIO}"}
    assert {1: "One", 2: "Two", 3: "Three"}[MANY_WARNED] + " or more in both windows are drift" in abouts
    rules = set(re.findall(r"score PSI of at least (\S+) in (\w+)", compare.__doc__ or ""))
    assert rules == {(f"{SCORE_PSI_DRIFT:.2f}", "both"), (f"{SCORE_PSI_WARN:.2f}", "either")}

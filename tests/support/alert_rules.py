"""Read the alert rules of the chart from their files."""

import re
from collections.abc import Sequence
from typing import Any

import yaml

from tests.support.project import CHART

RULES = sorted((CHART / "files" / "rules").glob("*.yaml"))


def in_the_files() -> list[dict[str, Any]]:
    """Return the groups of rules of all files."""
    return [group for path in RULES for group in yaml.safe_load(path.read_text())["groups"]]


def alerts(groups: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rules of these groups."""
    return [rule for group in groups for rule in group["rules"]]


def names(groups: Sequence[dict[str, Any]]) -> set[str]:
    """Return the names of the alerts of these groups."""
    return {rule["alert"] for rule in alerts(groups)}


def thresholds() -> dict[str, str]:
    """Return each threshold with the default that the files give it."""
    texts = [path.read_text() for path in RULES]
    marks = {mark: value for text in texts for value, mark in re.findall(r"(\S+)  # (\w+)$", text, re.MULTILINE)}
    del marks["cronJobs"]
    return marks

"""Each alert fires when it should and only then, has a runbook, and can be switched off."""

import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.helm import Helm, Values, named
from tests.chart.observability import promtool
from tests.chart.rules import AS_IN_THE_FILES, OPERATOR, groups
from tests.support.alert_rules import RULES, alerts, in_the_files, names, thresholds
from tests.support.project import CHART, ROOT

TESTS = sorted((CHART / "files" / "rules" / "tests").glob("*.yaml"))


def cases() -> list[dict[str, Any]]:
    """Return every question of the promtool tests: an alert, and the result that they expect."""
    tests = [test for path in TESTS for test in yaml.safe_load(path.read_text())["tests"]]
    return [case for test in tests for case in test["alert_rule_test"]]


def setting(**settings: Any) -> Values:
    return {"metrics": {"prometheusRule": settings}}


def test_the_files_are_the_rules_that_an_installation_of_their_names_gets(helm: Helm) -> None:
    assert groups(helm, AS_IN_THE_FILES) == in_the_files()


def test_every_alert_fires_and_does_not_fire_as_its_tests_say(helm4: Helm, tmp_path: Path) -> None:
    for path, group in zip(RULES, groups(helm4, AS_IN_THE_FILES), strict=True):
        (tmp_path / path.name).write_text(yaml.safe_dump({"groups": [group]}))
    (tmp_path / "tests").mkdir()
    for path in TESTS:
        (tmp_path / "tests" / path.name).write_text(path.read_text())

    program = promtool()
    check = subprocess.run(
        [program, "check", "rules", "--lint-fatal", *(tmp_path / path.name for path in RULES)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert check.returncode == 0, check.stdout + check.stderr

    def run(path: Path) -> str:
        command = [program, "test", "rules", str(tmp_path / "tests" / path.name)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return "" if done.returncode == 0 else done.stdout + done.stderr

    with ThreadPoolExecutor(2) as pool:
        assert "".join(pool.map(run, TESTS)) == ""


@pytest.mark.parametrize("alert", sorted(names(in_the_files())))
def test_every_alert_has_a_test_in_which_it_fires_and_one_in_which_it_does_not(alert: str) -> None:
    fires = [bool(case["exp_alerts"]) for case in cases() if case["alertname"] == alert]

    assert set(fires) == {True, False}


@pytest.mark.parametrize("rule", alerts(in_the_files()), ids=lambda rule: rule["alert"])
def test_every_alert_says_how_bad_it_is_what_it_means_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    _, _, runbook = rule["annotations"]["runbook_url"].partition("/blob/main/")
    text = (ROOT / runbook).read_text()
    assert runbook == f"docs/runbooks/{rule['alert']}.md"
    assert text.startswith(f"# {rule['alert']}\n")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Meaning", "Confirm", "Repair", "Worry when"]
    assert "\n```bash\n" in text


def test_there_is_no_runbook_without_an_alert() -> None:
    assert {path.stem for path in (ROOT / "docs" / "runbooks").glob("*.md")} == names(in_the_files())


@pytest.mark.parametrize("half", [0, 1])
def test_every_alert_can_be_switched_off(helm4: Helm, half: int) -> None:
    unwanted = sorted(names(in_the_files()))[half::2]

    left = names(groups(helm4, {**AS_IN_THE_FILES, **setting(disabled=unwanted)}))

    assert left == names(in_the_files()) - set(unwanted)


def test_an_alert_that_does_not_exist_cannot_be_switched_off(helm: Helm) -> None:
    said = helm.refusal(setting(disabled=["FraudApiDwon"]), api_versions=OPERATOR)

    assert said == (
        "metrics.prometheusRule.disabled names FraudApiDwon, which is not an alert of this chart; its alerts are "
        + ", ".join(sorted(names(in_the_files())))
    )


def test_without_any_alert_no_empty_group_is_left(helm: Helm) -> None:
    assert groups(helm, setting(disabled=sorted(names(in_the_files())))) == []


def test_every_threshold_is_a_value_and_those_with_a_number_have_the_one_of_the_files() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())["metrics"]["prometheusRule"]["thresholds"]

    assert set(values) == set(thresholds())
    assert {name: str(value) for name, value in values.items() if value is not None}.items() <= thresholds().items()


JOBS = ("detectDrift", "retrain", "backup")


def scheduled(*schedules: str, **settings: Any) -> Values:
    """Return values with these schedules of the three jobs."""
    jobs: dict[str, Any] = {name: {"schedule": schedule} for name, schedule in zip(JOBS, schedules, strict=True)}
    jobs["backup"] |= {"enabled": True, "existingClaim": "backups"}
    return {"jobs": jobs, **setting(**settings)}


def patience(helm: Helm, values: Values) -> list[float]:
    """Return the hours without a success after which the alert on missing runs fires, for each of the three jobs."""
    rules = " ".join(rule["expr"] for rule in alerts(groups(helm, values)))
    return [float(hours) for name in JOBS for hours in re.findall(rf"(\S+)  # {name}Hours", rules)]


@pytest.mark.parametrize(
    ("schedules", "periods"),
    [
        (("0 2 * * *", "@daily", "30 4 * * 1-5"), (24, 24, 72)),
        (("0 3 * * MON", "0 3 1 * *", "*/15 * * * *"), (7 * 24, 31 * 24, 1)),
        (("0 */6 * * *", "0 8,20 * * *", "@every 36h"), (6, 12, 36)),
        (("0 3 1,15 * *", "0 3 30 * *", "0 3 1 * 5"), (17 * 24, 62 * 24, 7 * 24)),
        (("0 0-12/4 * * ?", "@weekly", "@every 90m"), (12, 7 * 24, 1)),
        (("0 3 */10 * *", "30 2 * * tue,FRI", "@hourly"), (11 * 24, 4 * 24, 1)),
    ],
)
def test_missing_runs_are_noticed_after_two_periods_of_the_schedule(
    helm4: Helm, schedules: tuple[str, ...], periods: tuple[int, ...]
) -> None:
    assert patience(helm4, scheduled(*schedules)) == [2 * period + 1 for period in periods]


def test_a_schedule_of_some_months_is_waited_for(helm: Helm) -> None:
    [yearly, half_yearly, _] = patience(helm, scheduled("@yearly", "0 3 * JAN,jul SUN", "@daily"))

    assert 2 * 366 * 24 < yearly < 2 * 410 * 24
    assert 2 * 184 * 24 < half_yearly < 2 * 200 * 24


def test_a_threshold_of_the_values_replaces_that_of_the_schedule(helm: Helm) -> None:
    values = scheduled("@daily", "@weekly", "@daily", thresholds={"retrainHours": 200, "modelAgeDays": 45})

    assert patience(helm, values) == [49, 200, 49]
    assert "> 45  # modelAgeDays" in str(groups(helm, values))


def test_a_model_is_stale_after_three_times_the_days_until_retraining(helm: Helm) -> None:
    assert "> 150  # modelAgeDays" in str(groups(helm, {"config": {"retrainAfterDays": 50}}))


TOO_EARLY = scheduled("@weekly", "@daily", "@daily", thresholds={"detectDriftHours": 49})


def test_an_alert_that_would_fire_between_two_runs_is_refused(helm: Helm) -> None:
    assert helm.refusal(TOO_EARLY) == (
        "these values cannot work together:\n"
        "- metrics.prometheusRule.thresholds.detectDriftHours is 49, but jobs.detectDrift.schedule may leave 168 hours "
        "between two runs, so FraudJobNotRun would fire without a fault: leave the threshold out, or raise it"
    )


@pytest.mark.parametrize(
    "reason_gone",
    [
        setting(disabled=["FraudJobNotRun"]),
        setting(enabled=False),
        {"jobs": {"detectDrift": {"suspend": True}}},
        {"jobs": {"detectDrift": {"enabled": False}}},
    ],
)
def test_an_alert_that_does_not_fire_is_not_refused(helm4: Helm, reason_gone: Values) -> None:
    assert helm4.render(merged(TOO_EARLY, reason_gone))


def merged(one: Values, other: Values) -> dict[str, Any]:
    """Return both trees of values as one."""
    return {
        **one,
        **{k: merged(one[k], v) if isinstance(v, dict) and k in one else v for k, v in other.items()},
    }


def test_every_threshold_can_be_set(helm4: Helm) -> None:
    wanted = {name: f"{number}h" if name.endswith("For") else number for number, name in enumerate(thresholds(), 770)}

    changed = alerts(groups(helm4, {**AS_IN_THE_FILES, **setting(thresholds=wanted)}))

    different = {name: set[str]() for name in wanted}
    for was, now in zip(alerts(in_the_files()), changed, strict=True):
        old, new = (f"{rule['expr']} for {rule.get('for')}" for rule in (was, now))
        for name, value in wanted.items():
            if str(value) in new:
                different[name].add(was["alert"])
                new = new.replace(str(value), thresholds()[name])
        assert new == old
    assert different == {name: {alert_of(name)} for name in wanted}


def alert_of(threshold: str) -> str:
    """Return the alert that the comment of a threshold in values.yaml names."""
    text = (CHART / "values.yaml").read_text()
    [comment] = re.findall(rf"# -- (Fraud\w+):[^\n]*\n(?:\s+# [^-][^\n]*\n)*\s+{threshold}:", text)
    return str(comment)


def test_two_releases_never_raise_each_others_alerts(helm: Helm) -> None:
    """Every selector names the namespace of the release, and also its service, CronJob or claim."""
    backups = {"enabled": True, "existingClaim": "payments-fraud-detection-backups"}
    selectors = [
        (rule["alert"], metric, matchers)
        for rule in alerts(groups(helm, {"jobs": {"backup": backups}}, release="payments"))
        for metric, matchers in re.findall(r"\b(\w+)\{([^}]*)\}", rule["expr"])
        if metric != "kube_job_failed"  # joined to a selection by namespace and job_name
    ]

    assert {alert for alert, _, _ in selectors} == names(in_the_files())
    for alert, metric, matchers in selectors:
        assert 'namespace="fraud"' in matchers, (alert, metric)
        assert "payments-fraud-detection-" in matchers, (alert, metric)
        assert not re.search(r'[="|(]fraud-detection-', matchers), (alert, metric)


def test_names_that_contain_each_other_are_not_mixed_up(helm: Helm) -> None:
    rendered = groups(helm, {**AS_IN_THE_FILES, "fullnameOverride": "fraud-detection-api"})

    expression = next(rule["expr"] for rule in alerts(rendered) if rule["alert"] == "FraudVolumeFilling")
    assert 'persistentvolumeclaim="fraud-detection-api-data"' in expression
    assert 'service="fraud-detection-api-api"' in expression


def test_existing_claims_are_watched(helm: Helm) -> None:
    values = {
        "persistence": {"existingClaim": "disk.one"},
        "jobs": {"backup": {"enabled": True, "existingClaim": "backups"}},
    }

    rules = {rule["alert"]: rule["expr"] for rule in alerts(groups(helm, values))}

    assert 'persistentvolumeclaim=~"disk.one|' in rules["FraudVolumeFilling"]


def test_a_long_release_is_watched_under_the_names_that_it_really_has(helm: Helm) -> None:
    manifests = helm.render(AS_IN_THE_FILES, release="r" * 53, api_versions=OPERATOR)
    rules = yaml.safe_dump(named(manifests, "PrometheusRule")["spec"], width=10_000)

    for kind in ("CronJob", "Service"):
        watched = {m["metadata"]["name"] for m in manifests if m["kind"] == kind}
        watched -= {name for name in watched if name.endswith("-fraudctl")}
        assert len(watched) > 1
        assert {name for name in watched if name not in rules} == set()


def test_figures_at_another_pushgateway_are_found_by_the_name_of_the_job_alone(helm: Helm) -> None:
    values = {"pushgateway": {"enabled": False, "externalUrl": "http://gateway.elsewhere:9091"}}

    rendered = {rule["alert"]: rule["expr"] for rule in alerts(groups(helm, values))}

    assert rendered["FraudDataQuality"] == 'fraud_drift_reason{job="fraud-drift", reason="data_quality"} == 1'
    assert 'absent(fraud_job_last_attempt_timestamp_seconds{job="fraud-retrain"})' in rendered["FraudJobSeriesAbsent"]


def test_without_a_pushgateway_no_alert_misses_its_figures(helm: Helm) -> None:
    rendered = names(groups(helm, {"pushgateway": {"enabled": False}}))

    assert names(in_the_files()) - rendered == {"FraudJobSeriesAbsent"}


def test_without_jobs_no_alert_misses_them(helm: Helm) -> None:
    rendered = names(groups(helm, {"jobs": {"detectDrift": {"enabled": False}, "retrain": {"enabled": False}}}))

    assert names(in_the_files()) - rendered == {"FraudCronJobsUnseen"}


def test_as_many_cron_jobs_are_expected_as_are_installed(helm: Helm) -> None:
    counted = {
        enabled: next(rule["expr"] for rule in alerts(groups(helm, values)) if rule["alert"] == "FraudCronJobsUnseen")
        for enabled, values in [(2, {}), (3, AS_IN_THE_FILES), (1, {"jobs": {"retrain": {"enabled": False}}})]
    }

    assert [f"< {enabled}  # cronJobs" in expression for enabled, expression in counted.items()] == [True] * 3


def test_alerts_have_the_labels_and_runbooks_of_the_values(helm: Helm) -> None:
    rendered = alerts(groups(helm, setting(alertLabels={"team": "payments"}, runbookUrl="https://wiki.example/fraud/")))

    assert rendered
    for rule in rendered:
        assert rule["labels"]["team"] == "payments"
        assert rule["annotations"]["runbook_url"] == f"https://wiki.example/fraud/{rule['alert']}.md"


def test_no_label_of_the_values_replaces_a_severity(helm: Helm) -> None:
    rendered = groups(helm, setting(alertLabels={"severity": "none"}))

    assert {rule["labels"]["severity"] for rule in alerts(rendered)} == {"critical", "warning"}

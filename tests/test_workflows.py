"""The workflows of .github keep their rules, and their scripts decide as they say."""

import json
import os
import re
import shutil
import subprocess
import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.programs import skip_or_fail
from tests.support.project import ROOT

SCRIPTS = ROOT / ".github" / "scripts"
FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))

Workflow = dict[str, Any]
Rule = Callable[[Workflow], list[str]]

workflow_files = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


def parsed(text: str) -> Workflow:
    """Parse YAML with every scalar as text, because the key `on` would become true otherwise."""
    workflow: Workflow = yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506  it makes nothing but texts
    return workflow


def workflow(name: str) -> Workflow:
    return parsed((ROOT / ".github" / "workflows" / f"{name}.yml").read_text())


def steps(of: Workflow) -> Iterator[tuple[str, Workflow]]:
    """Return every step with the name of its job."""
    for name, job in of["jobs"].items():
        for step in job["steps"]:
            yield name, step


def commands(of: Workflow) -> str:
    return "\n".join(step.get("run", "") for _, step in steps(of))


# -- rules, each a function from a workflow to what breaks it --------------------------------------------------------


def jobs_with_rights_by_default(of: Workflow) -> list[str]:
    top = [] if of.get("permissions") == {} else ["the workflow"]
    return top + [name for name, job in of["jobs"].items() if not isinstance(job.get("permissions"), dict)]


def jobs_without_a_time_limit(of: Workflow) -> list[str]:
    return [name for name, job in of["jobs"].items() if not job.get("timeout-minutes", "").isdigit()]


def unpinned_actions(of: Workflow) -> list[str]:
    used = [step["uses"] for _, step in steps(of) if "uses" in step]
    return [each for each in used if not re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}", each)]


def checkouts_that_keep_credentials(of: Workflow) -> list[str]:
    checkouts = [(job, step) for job, step in steps(of) if step.get("uses", "").startswith("actions/checkout@")]
    return [job for job, step in checkouts if step.get("with", {}).get("persist-credentials") != "false"]


def triggers_with_rights_for_strangers(of: Workflow) -> list[str]:
    return sorted({"pull_request_target", "workflow_run", "issue_comment"} & set(of["on"]))


def commands_with_expressions(of: Workflow) -> list[str]:
    """Find `run` steps with an expression: its text becomes code there, while through `env` it stays text."""
    return [job for job, step in steps(of) if "${{" in step.get("run", "")]


def shells_that_ignore_failures(of: Workflow) -> list[str]:
    """Find steps that do not name bash: GitHub runs it with pipefail only if it is named."""
    named = {name for name, job in of["jobs"].items() if _shell(job) == "bash" or _shell(of) == "bash"}
    return sorted({job for job, step in steps(of) if "run" in step} - named)


def _shell(of: Workflow) -> str | None:
    shell: str | None = of.get("defaults", {}).get("run", {}).get("shell")
    return shell


def images_without_a_digest(of: Workflow) -> list[str]:
    named = re.findall(r"kindest/node:[\w.:@-]+", yaml.safe_dump(of, width=1000))
    return [each for each in named if not re.fullmatch(r"kindest/node:[\w.]+@sha256:[0-9a-f]{64}", each)]


def required_without(of: Workflow) -> list[str]:
    """Return jobs that could fail while `required` passes."""
    required = of["jobs"].get("required", {})
    if required.get("if") != "always()":
        return ["if: always()"]
    return sorted(set(of["jobs"]) - {"required"} - set(required["needs"]))


RULES: list[tuple[Rule, str, str]] = [
    (jobs_with_rights_by_default, "permissions: {}\non", "on"),
    (jobs_with_rights_by_default, "    permissions: {}\n", ""),
    (jobs_without_a_time_limit, "    timeout-minutes: 5\n", ""),
    (unpinned_actions, f"actions/checkout@{'a' * 40}", "actions/checkout@v7"),
    (checkouts_that_keep_credentials, "persist-credentials: false", "persist-credentials: true"),
    (triggers_with_rights_for_strangers, "pull_request", "pull_request_target"),
    (commands_with_expressions, '"$TITLE"', '"${{ github.event.pull_request.title }}"'),
    (shells_that_ignore_failures, "defaults: {run: {shell: bash}}\n", ""),
    (images_without_a_digest, f"@sha256:{'b' * 64}", ""),
    (required_without, "needs: [test]", "needs: []"),
    (required_without, "if: always()", "if: success()"),
]
GOOD = f"""
permissions: {{}}
on: {{pull_request: {{}}}}
defaults: {{run: {{shell: bash}}}}
jobs:
  test:
    timeout-minutes: 5
    permissions: {{}}
    env: {{NODE: 'kindest/node:v1.37.0@sha256:{"b" * 64}'}}
    steps:
      - uses: actions/checkout@{"a" * 40}
        with: {{persist-credentials: false}}
      - run: echo "$TITLE"
  required:
    if: always()
    needs: [test]
    timeout-minutes: 5
    permissions: {{}}
    steps: []
"""


@pytest.mark.parametrize(("rule", "good", "bad"), RULES, ids=lambda value: getattr(value, "__name__", None) or "")
def test_each_rule_finds_what_breaks_it(rule: Rule, good: str, bad: str) -> None:
    assert good in GOOD

    assert rule(parsed(GOOD)) == []
    assert rule(parsed(GOOD.replace(good, bad))) != []


# -- facts of every workflow -----------------------------------------------------------------------------------------


def test_there_are_five_workflows() -> None:
    assert [file.stem for file in FILES] == ["ci", "e2e", "mlops", "release", "security"]


@workflow_files
def test_a_workflow_opens_with_what_it_is_for(file: Path) -> None:
    assert re.match(r"# [A-Z].*\.\n(#|name: )", file.read_text())


@workflow_files
def test_no_job_has_a_right_that_it_does_not_name(file: Path) -> None:
    assert jobs_with_rights_by_default(parsed(file.read_text())) == []


@workflow_files
def test_every_job_has_a_time_limit(file: Path) -> None:
    assert jobs_without_a_time_limit(parsed(file.read_text())) == []


@workflow_files
def test_every_action_is_pinned_by_its_commit(file: Path) -> None:
    assert unpinned_actions(parsed(file.read_text())) == []


@workflow_files
def test_every_pin_has_its_version_beside_it(file: Path) -> None:
    uses = [line for line in file.read_text().splitlines() if re.match(r"\s*(- )?uses:", line)]

    assert uses
    assert [line for line in uses if not re.search(r"@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line)] == []


def test_one_action_has_one_pin_everywhere() -> None:
    pins = defaultdict(set)
    for file in FILES:
        for action, pin in re.findall(r"uses: ([\w.-]+/[\w.-]+)\S*?@(\S+ # \S+)", file.read_text()):
            pins[action].add(pin)

    assert "actions/checkout" in pins
    assert {action: found for action, found in pins.items() if len(found) > 1} == {}


def test_one_tool_has_one_version_everywhere() -> None:
    versions = defaultdict(set)
    for file in FILES:
        for module, version in re.findall(r"go install (\S+)@(\S+)", file.read_text()):
            versions[module].add(version)
        for _, step in steps(parsed(file.read_text())):
            version = step.get("with", {}).get("version", "")
            if version.startswith("v4.") and step["uses"].startswith("azure/setup-helm@"):
                versions["helm 4"].add(version)

    assert "helm 4" in versions
    assert len(versions) > 1
    assert {tool for tool, found in versions.items() if len(found) > 1} == set()


@workflow_files
def test_a_checkout_keeps_no_credentials(file: Path) -> None:
    assert checkouts_that_keep_credentials(parsed(file.read_text())) == []


@workflow_files
def test_nothing_runs_a_strangers_code_with_rights(file: Path) -> None:
    assert triggers_with_rights_for_strangers(parsed(file.read_text())) == []


@workflow_files
def test_no_command_contains_an_expression(file: Path) -> None:
    assert commands_with_expressions(parsed(file.read_text())) == []


@workflow_files
def test_a_failure_in_a_pipe_fails_the_step(file: Path) -> None:
    assert shells_that_ignore_failures(parsed(file.read_text())) == []


@workflow_files
def test_kubernetes_comes_by_digest(file: Path) -> None:
    assert images_without_a_digest(parsed(file.read_text())) == []


@workflow_files
def test_only_a_pull_request_is_cancelled(file: Path) -> None:
    cancels = parsed(file.read_text())["concurrency"]["cancel-in-progress"]

    never = file.stem in {"release", "mlops"}
    assert cancels == ("false" if never else "${{ github.event_name == 'pull_request' }}")


@workflow_files
def test_make_is_asked_for_what_it_can_do(file: Path) -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    asked = set(re.findall(r"\bmake (?:--[\w-]+ )*([a-z0-9-]+)", commands(parsed(file.read_text()))))
    assert asked - targets == set()


def test_every_script_is_there_and_used_and_can_be_run() -> None:
    texts = [file.read_text() for file in [*FILES, *SCRIPTS.iterdir()]]
    called = {name for text in texts for name in re.findall(r"(?:\.github/scripts|\$here)/([\w-]+\.sh)", text)}

    assert called == {script.name for script in SCRIPTS.iterdir()}
    assert [script.name for script in SCRIPTS.iterdir() if not os.access(script, os.X_OK)] == []


@pytest.mark.parametrize("script", sorted(SCRIPTS.iterdir()), ids=lambda script: script.stem)
def test_a_script_stops_at_the_first_failure(script: Path) -> None:
    shebang, purpose, *rest = script.read_text().splitlines()

    assert shebang == "#!/usr/bin/env bash"
    assert re.fullmatch(r"# [A-Z].*\.", purpose)
    assert "set -euo pipefail" in rest


# -- facts of one workflow -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ci", "e2e"])
def test_required_waits_for_every_other_job(name: str) -> None:
    assert required_without(workflow(name)) == []


@pytest.mark.parametrize(
    ("name", "env", "passes"),
    [
        ("ci", {"RESULTS": "success success"}, True),
        ("ci", {"RESULTS": "success failure success"}, False),
        ("ci", {"RESULTS": "success skipped"}, False),
        ("ci", {"RESULTS": "cancelled"}, False),
        ("e2e", {"PLAN": "success", "RUN": "true", "E2E": "success"}, True),
        ("e2e", {"PLAN": "success", "RUN": "false", "E2E": "skipped"}, True),
        ("e2e", {"PLAN": "success", "RUN": "true", "E2E": "skipped"}, False),
        ("e2e", {"PLAN": "success", "RUN": "true", "E2E": "failure"}, False),
        ("e2e", {"PLAN": "success", "RUN": "true", "E2E": "cancelled"}, False),
        ("e2e", {"PLAN": "failure", "RUN": "", "E2E": "skipped"}, False),
    ],
)
def test_required_passes_only_when_all_passed_or_nothing_had_to_run(
    name: str, env: dict[str, str], passes: bool
) -> None:
    (step,) = workflow(name)["jobs"]["required"]["steps"]
    assert set(step["env"]) == set(env)

    done = bash(step["run"], env)

    assert (done.returncode == 0) is passes


def test_the_tests_run_on_every_python_that_the_project_names() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    oldest = int(project["requires-python"].removeprefix(">=3."))

    tested = workflow("ci")["jobs"]["unit"]["strategy"]["matrix"]["python"]
    assert tested == [f"3.{minor}" for minor in range(oldest, oldest + len(tested))]
    assert len(tested) >= 4


def test_the_clusters_are_in_order_and_not_older_than_the_chart_allows() -> None:
    (decide,) = (step for _, step in steps(workflow("e2e")) if step.get("id") == "decide")
    clusters = yaml.safe_load(decide["env"]["CLUSTERS"])
    chart = yaml.safe_load((ROOT / "charts" / "fraud-detection" / "Chart.yaml").read_text())
    oldest = re.fullmatch(r">=1\.(\d+)\.0-0", chart["kubeVersion"])
    assert oldest

    minors = [int(cluster["kubernetes"].split(".")[1]) for cluster in clusters]
    assert len(minors) > 1
    assert minors == list(range(minors[0], minors[0] + len(minors)))
    assert minors[0] >= int(oldest[1])
    assert all(f":{cluster['kubernetes']}@" in cluster["node"] for cluster in clusters)


def test_a_monthly_run_is_one_that_is_scheduled() -> None:
    mlops = workflow("mlops")
    scheduled = [each["cron"] for each in mlops["on"]["schedule"]]

    named = re.findall(r"github\.event\.schedule == '([^']+)'", mlops["jobs"]["plan"]["if"])
    assert len(named) == 1
    assert set(named) < set(scheduled)


def test_what_pushes_images_cannot_reach_the_cluster() -> None:
    jobs = workflow("mlops")["jobs"]
    pushing = {name for name, job in jobs.items() if job["permissions"].get("packages") == "write"}
    reaching = {name for name, job in jobs.items() if "secrets." in yaml.safe_dump(job)}

    assert pushing == {"images"}
    assert reaching == {"plan", "loop"}
    assert all(jobs[name]["environment"] == "production" for name in reaching)


def test_a_release_uses_no_cache_and_is_approved_before_it_is_signed() -> None:
    jobs = workflow("release")["jobs"]
    builds = [step for _, step in steps(workflow("release")) if step.get("uses", "").startswith("docker/build-push")]

    assert builds
    assert all(step["with"]["no-cache"] == "true" and "cache-from" not in step["with"] for step in builds)
    assert not re.search(r"actions/cache|^\s+cache: ", (ROOT / ".github/workflows/release.yml").read_text(), re.M)
    assert [name for name, job in jobs.items() if "id-token" in job["permissions"]] == ["publish"]
    assert jobs["publish"]["environment"] == "release"


def test_a_list_of_packages_is_cut_before_it_is_attested() -> None:
    publish = workflow("release")["jobs"]["publish"]["steps"]
    cut = next(number for number, step in enumerate(publish) if "drop-sbom-files.sh" in step.get("run", ""))
    made = {step["with"]["output-file"]: at for at, step in enumerate(publish) if "output-file" in step.get("with", {})}
    attested = {step["with"]["sbom-path"]: at for at, step in enumerate(publish) if "sbom-path" in step.get("with", {})}

    assert made.keys() == attested.keys() == {"fraud-detection-api.spdx.json", "fraud-detection-jobs.spdx.json"}
    assert max(made.values()) < cut < min(attested.values())
    assert (
        'for image in api jobs; do\n  .github/scripts/drop-sbom-files.sh "fraud-detection-$image.spdx.json"'
        in (publish[cut]["run"])
    )


def test_dependabot_waits_before_it_proposes() -> None:
    updates = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text())["updates"]

    assert {update["package-ecosystem"] for update in updates} >= {"github-actions", "pip", "docker"}
    assert all(update["cooldown"]["default-days"] >= 7 for update in updates)


# -- the script that cuts lists of packages --------------------------------------------------------------------------


SBOM: dict[str, Any] = {
    "spdxVersion": "SPDX-2.3",
    "packages": [
        {
            "SPDXID": "SPDXRef-Package-pandas",
            "name": "pandas",
            "filesAnalyzed": True,
            "packageVerificationCode": {"packageVerificationCodeValue": "0"},
            "licenseInfoFromFiles": ["NOASSERTION"],
        },
        {"SPDXID": "SPDXRef-Package-numpy", "name": "numpy", "filesAnalyzed": False},
    ],
    "files": [{"SPDXID": "SPDXRef-File-1", "fileName": "pandas/__init__.py"}],
    "relationships": [
        {"spdxElementId": "SPDXRef-DOCUMENT", "relatedSpdxElement": "SPDXRef-Package-pandas"},
        {"spdxElementId": "SPDXRef-Package-pandas", "relatedSpdxElement": "SPDXRef-Package-numpy"},
        {"spdxElementId": "SPDXRef-Package-pandas", "relatedSpdxElement": "SPDXRef-File-1"},
    ],
}


@pytest.fixture
def cut(tmp_path: Path) -> Callable[[Workflow], tuple[subprocess.CompletedProcess[str], Workflow]]:
    """Run the script on a document, and return what it says and what it leaves."""
    if shutil.which("jq") is None:
        skip_or_fail("jq is not installed (https://jqlang.org)")

    def run(document: Workflow) -> tuple[subprocess.CompletedProcess[str], Workflow]:
        file = tmp_path / "image.spdx.json"
        file.write_text(json.dumps(document))
        done = bash(f"{SCRIPTS}/drop-sbom-files.sh '{file}'", {})
        return done, json.loads(file.read_text())

    return run


def test_packages_and_what_relates_them_stay(
    cut: Callable[[Workflow], tuple[subprocess.CompletedProcess[str], Workflow]],
) -> None:
    done, left = cut(SBOM)
    again = cut(left)[1]

    pandas, numpy = SBOM["packages"]
    assert done.returncode == 0, done.stderr
    assert (
        left
        == again
        == {
            "spdxVersion": "SPDX-2.3",
            "packages": [{name: pandas[name] for name in ("SPDXID", "name")} | {"filesAnalyzed": False}, numpy],
            "relationships": SBOM["relationships"][:2],
        }
    )


def test_a_list_that_stays_too_large_fails(
    cut: Callable[[Workflow], tuple[subprocess.CompletedProcess[str], Workflow]],
) -> None:
    done, _ = cut(SBOM | {"packages": [{"name": "x" * 1000}] * 14_000})

    assert done.returncode == 1
    assert "more than 14000000" in done.stderr


# -- the scripts, with a kubectl that answers what a test says -------------------------------------------------------


def bash(script: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
    return subprocess.run(command, env={"PATH": os.environ["PATH"], **env}, capture_output=True, text=True, check=False)


@pytest.fixture
def script(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a script with answers of kubectl: {"get job": "Complete"}; the first part that fits its arguments counts."""

    def run(command: str, answers: dict[str, str]) -> subprocess.CompletedProcess[str]:
        cases = []
        for number, (part, answer) in enumerate(answers.items()):
            (tmp_path / str(number)).write_text(answer)
            cases.append(f"*'{part}'*) cat '{tmp_path / str(number)}' ;;")
        kubectl = tmp_path / "kubectl"
        kubectl.write_text(
            f'#!/bin/sh\necho "$*" >> {tmp_path}/asked\n'
            f'case "$*" in {" ".join(cases)} *) echo "unexpected: $*" >&2; exit 9 ;; esac\n'
        )
        kubectl.chmod(0o755)
        return bash(f"{SCRIPTS}/{command}", {"PATH": f"{tmp_path}:{os.environ['PATH']}"})

    return run


OLD, NEW = "a" * 64, "b" * 64


def cluster_after(*, served: str = NEW, reference: str = "same", pods: str = "api-1=True=\n") -> dict[str, str]:
    return {
        "get pods": pods,
        "exec -i api-1": f"{served}\n",
        "exec -i api-2": f"{OLD}\n",
        "get deployment": "deployment.apps/api\n",
        "exec -i deployment.apps/api": f"20260101T000000Z-b\n{NEW}\n{NEW}\n{reference}\nsame\n",
    }


@pytest.mark.parametrize(
    ("arguments", "cluster", "exit_code", "says"),
    [
        ("", cluster_after(), 0, "match the manifest"),
        (f"{OLD} promoted", cluster_after(), 0, "the model changed, and its reference with it"),
        (f"{NEW} skipped", cluster_after(), 0, "the model did not change"),
        (f"{NEW} promoted", cluster_after(), 1, "promoted a model, but the previous version still serves"),
        ("", cluster_after(served=OLD), 1, "serves another model"),
        ("", cluster_after(reference="another"), 1, "reference_data.db"),
        ("", cluster_after(pods="api-1=True=\napi-2=True=\n"), 1, "do not serve the same model"),
        ("", cluster_after(pods="api-1=True=\napi-2=False=\n"), 0, "match the manifest"),
        ("", cluster_after(pods="api-1=True=2026-01-01T00:00:00Z\n"), 1, "is ready"),
    ],
)
def test_a_model_is_verified_with_its_reference(
    script: Callable[..., subprocess.CompletedProcess[str]],
    arguments: str,
    cluster: dict[str, str],
    exit_code: int,
    says: str,
) -> None:
    done = script(f"verify-model.sh {arguments}", cluster)

    assert done.returncode == exit_code, done.stderr
    assert says in done.stdout + done.stderr


PROMOTED = '{"message": "promoted: it serves. failed: 0"}\n{"message": "the Pushgateway is away"}\n'
FAILED = '{"message": "failed: no labels"}'


def cluster_with_job(condition: str, log: str) -> dict[str, str]:
    return {
        "get cronjob": "cronjob.batch/fraud-retrain\n",
        "create job": "{}",
        "patch --local": "{}",
        "create -f": "created\n",
        "get job": condition,
        "get pods": "retrain-1=Running\n",
        "logs --follow retrain-1": log,
        "describe": "what happened\n",
    }


@pytest.mark.parametrize(
    ("condition", "log", "exit_code", "last_line"),
    [
        ("SuccessCriteriaMet Complete", PROMOTED, 0, "outcome=promoted"),
        ("Complete", "02:00:00 INFO    held_frauds: too few\n", 0, "outcome=held_frauds"),
        ("Complete", '{"message": "drift: ok"}\n', 0, "outcome=completed"),
        ("FailureTarget Failed", f"{FAILED}\n", 1, FAILED),
    ],
)
def test_a_job_that_is_run_by_hand_ends_as_it_ended_in_the_cluster(
    script: Callable[..., subprocess.CompletedProcess[str]], condition: str, log: str, exit_code: int, last_line: str
) -> None:
    done = script("run-job.sh retrain", cluster_with_job(condition, log))

    assert done.returncode == exit_code, done.stderr
    assert done.stdout.splitlines()[-1] == last_line


def test_a_job_gets_the_arguments_that_it_is_run_with(
    script: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    script("run-job.sh retrain --force", cluster_with_job("Complete", PROMOTED))

    assert (
        '"path": "/spec/template/spec/containers/0/command/-", "value": "--force"' in (tmp_path / "asked").read_text()
    )


def test_an_argument_that_is_more_than_a_word_is_refused(
    script: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    done = script("""run-job.sh retrain '"}, {"op": "remove'""", cluster_with_job("Complete", PROMOTED))

    assert done.returncode == 2
    assert "create -f" not in (tmp_path / "asked").read_text()


def test_a_job_that_is_not_there_is_not_run(script: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = script("run-job.sh retrain", {"get cronjob": ""})

    assert done.returncode == 1
    assert "expected one CronJob for retrain" in done.stderr

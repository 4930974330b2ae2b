"""Variables, commands, endpoints, links and tests that documents name exist, with the facts that they state."""

import inspect
import re
import shlex
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from openapi_spec_validator.readers import read_from_filename

from api.app import create_app
from fraud_detection.exit_codes import ExitCode
from fraud_detection.settings import ApiSettings, ClientSettings, JobSettings
from fraudctl.main import main as fraudctl
from generate.command_line import commands
from jobs.drift import compare, distance
from jobs.evaluation import gate
from jobs.evaluation.measures import RESAMPLES
from jobs.training import challenger
from tests.support.project import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
PLACES = ("*.md", "docs/**/*.md", "k8s-dev/*.md", "charts/**/*.md", ".github/*.md")
DOCUMENTS = sorted(path for pattern in PLACES for path in ROOT.glob(pattern))
NOT_OURS = {"NAME_FILE", "POSTGRES_TEST_URL"}  # a pattern, and variables of the tests
# Variables of gunicorn, Flask and others that the API refuses.
NOT_OURS |= set(re.findall(r"[A-Z]+(?:_[A-Z]+)+", (ROOT / "api" / "surroundings.py").read_text(encoding="utf-8")))
# Variables of every program that sends requests.
NOT_OURS |= {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"}
# Variables that the development cluster and its tests read.
NOT_OURS |= {
    name
    for path in (ROOT / "Makefile", ROOT / "k8s-dev" / "up.sh", *ROOT.glob("tests/e2e/*.py"))
    for name in re.findall(r"(?:\$\{|\$\(|environ\.get\(\")([A-Z0-9_]+)", path.read_text(encoding="utf-8"))
}

documents = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)


def code_blocks(document: Path, language: str) -> list[str]:
    """Return the fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", document.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def command_lines(document: Path) -> Iterator[list[str]]:
    """Return what the bash blocks of a document run, one list of words a command."""
    for block in code_blocks(document, "bash"):
        for line in re.sub(r"\\\n", " ", block).splitlines():
            command_line = re.sub(r"^(?:[A-Z_]+=\S+ )+", "", line)  # without variables for this command alone
            command_line = re.sub(r"^\s*kubectl exec .*? -- ", "", command_line)  # what runs in a pod runs there too
            if command_line.startswith(("make ", "fraudctl ", ".venv/bin/python -m ")):
                yield shlex.split(command_line, comments=True)


def links(document: Path) -> list[str]:
    """Return where the links and pictures of a document lead."""
    found = re.findall(r"\]\(([^)\s]+)\)|(?:src|srcset)=\"([^\"]+)\"", document.read_text(encoding="utf-8"))
    return [link or picture for link, picture in found]


def named_tests(document: Path) -> list[tuple[str, str]]:
    """Return the path and the name, which may be empty, of each test that a document names."""
    return re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?", document.read_text(encoding="utf-8"))


def slug(heading: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


FRAUDCTL = dict(commands(fraudctl, "fraudctl"))
MAKE_TARGETS = re.findall(r"^([a-z0-9-]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("settings", [ApiSettings, JobSettings, ClientSettings], ids=lambda each: each.__name__)
def test_every_variable_is_documented_with_its_default_and_meaning(settings: type[ApiSettings]) -> None:
    document = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    rows = set(re.findall(r"^\| (.*) \| .*\|$", document, re.MULTILINE))

    for variable in settings.variables():
        default = "required" if variable.required else f"`{variable.default}`" if variable.default else "none"
        meaning = variable.meaning + " (secret)" * variable.secret
        assert f"`{variable.name}` | {default} | {meaning}" in rows


@documents
def test_names_only_variables_that_exist(document: Path) -> None:
    settings = (ApiSettings, JobSettings, ClientSettings)
    known = {variable.name for each in settings for variable in each.variables()}
    known |= {f"{variable.name}_FILE" for each in settings for variable in each.variables() if variable.secret}

    named = set(re.findall(r"`\$?([A-Z][A-Z0-9]+(?:_[A-Z0-9]+)+)\b", document.read_text(encoding="utf-8")))

    assert named - known - NOT_OURS == set()


@pytest.mark.parametrize("target", MAKE_TARGETS)
def test_contributing_names_every_make_target(target: str) -> None:
    assert f"`make {target}`" in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "block",
    [block for language in ("python", "yaml", "text") for block in code_blocks(ROOT / "CONTRIBUTING.md", language)],
)
def test_the_examples_of_contributing_stand_in_the_files_that_they_name(block: str) -> None:
    name, _, example = block.removeprefix("# ").partition("\n")
    text = (ROOT / name).read_text(encoding="utf-8")

    assert any(textwrap.indent(example, " " * width) in text for width in range(0, 9, 2)), name


def test_contributing_names_every_caller_of_the_threshold_and_every_exit_code() -> None:
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (threshold,) = re.findall(r"^\| where the threshold is applied \|.*", contributing, re.MULTILINE)
    callers = {
        str(path.relative_to(ROOT))
        for package in ("api", "fraud_detection", "fraudctl", "jobs")
        for path in (ROOT / package).rglob("*.py")
        if re.search(r"^from fraud_detection.decision import flagged$", path.read_text(encoding="utf-8"), re.MULTILINE)
    }

    assert set(re.findall(r"`([\w/]+\.py)`", threshold)) == {"fraud_detection/decision.py", *callers}
    assert ", ".join(f"{code:d} {code.name.lower().replace('_', ' ')}" for code in ExitCode) in contributing


@pytest.mark.parametrize("command", FRAUDCTL)
def test_every_command_of_fraudctl_is_documented_with_its_options(command: str) -> None:
    document = (ROOT / "docs" / "fraudctl.md").read_text(encoding="utf-8")

    [section] = re.findall(rf"^## {command}\n(.*?)(?=^## |\Z)", document, re.MULTILINE | re.DOTALL)

    for option in FRAUDCTL[command].params:
        assert option.opts[0] in section or option.make_metavar(click.Context(FRAUDCTL[command])) in section


@pytest.mark.parametrize("document", ["docs/configuration.md", "docs/fraudctl.md"])
def test_the_readme_leads_to_the_generated_documents(document: str) -> None:
    assert f"({document})" in README


@pytest.mark.parametrize("command", FRAUDCTL)
def test_every_command_of_fraudctl_explains_itself(command: str) -> None:
    assert FRAUDCTL[command].help


def test_the_readme_and_the_reasons_hold_what_the_tests_of_documents_check() -> None:
    readme, reasons = ROOT / "README.md", ROOT / "docs" / "why.md"

    assert {words[0] for words in command_lines(readme)} >= {"make", "fraudctl"}
    assert "LICENSE" in links(readme)
    assert len(named_tests(reasons)) > 10


def test_operations_state_the_rules_of_drift_and_gate_with_their_numbers() -> None:
    operations = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    drift = operations.partition("### What counts as drift")[2].partition("\n#")[0]
    rules = operations.partition("### What the gate asks")[2].partition("\n#")[0]

    for fact in (
        f"transactions of {compare.PERIOD.days} days",
        f"(*D* at least {distance.DRIFTED_D:g})",
        f"three features are warned (*D* at least {distance.WARNED_D:g})",
        f"p below\n{distance.CHANCE:g}, for features after the correction of Benjamini and Hochberg",
        "for the alert rate by Fisher's exact test",
        f"is {compare.DRIFTED_ALERT_RATIO:g} times",
        "and the threshold is still that of the hold-out",
        f"at least {compare.SCORE_PSI_DRIFT:g}, with {compare.SCORE_PSI_ROWS:,} scored rows",
        f"in either window, a feature is warned or the PSI of the scores is at least {compare.SCORE_PSI_WARN:g}",
    ):
        assert fact in drift
    for fact in (
        f"the {gate.LOWER_BOUND:.0%} bound of {RESAMPLES:,} resamples".replace("%", " %"),
        f"lower by at most {gate.RECALL_LOSS:g}",
        f"at most {gate.ALERT_GROWTH:g} times",
        f"it flags {1 / challenger.ALERT_RATIO:g} to {challenger.ALERT_RATIO:g} times as many",
    ):
        assert fact in rules
    sources = inspect.getsource(gate) + inspect.getsource(challenger)
    checks = re.findall(r'\bCheck\(\s*"(\w+)"', sources)
    assert set(re.findall(r"^\| `(\w+)`", rules, re.MULTILINE)) == set(checks)


@documents
def test_commands_in_documents_exist_with_their_options(document: Path) -> None:
    for words in command_lines(document):
        if words[0] == "make":
            targets = [word for word in words[1:] if "=" not in word]
            assert set(targets) <= set(MAKE_TARGETS), words
        elif words[0] == "fraudctl":
            name = max((name for name in FRAUDCTL if words[: name.count(" ") + 1] == name.split()), key=len, default="")
            assert name, f"no such command: {words}"
            parameters = FRAUDCTL[name].params
            known = {option for each in parameters for option in (*each.opts, *each.secondary_opts)} | {"--help"}
            assert {word.split("=")[0] for word in words if word.startswith("--")} <= known, words
        elif words[1:2] == ["-m"]:
            assert (ROOT / f"{words[2].replace('.', '/')}.py").exists(), words


def test_the_openapi_document_has_the_paths_and_methods_that_the_service_has(
    sqlite_environment: dict[str, str],
) -> None:
    document, _ = read_from_filename(str(ROOT / "docs" / "openapi.yaml"))
    app = create_app(ApiSettings.from_env(sqlite_environment))

    served = {
        (re.sub(r"<.*?>", "{id}", rule.rule), method.lower())
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    app.close()

    assert {(path, method) for path, methods in document["paths"].items() for method in methods} == served


@documents
def test_bash_in_documents_is_bash(document: Path) -> None:
    for block in code_blocks(document, "bash"):
        checked = subprocess.run(["bash", "-n"], input=block, text=True, capture_output=True, check=False)

        assert checked.returncode == 0, f"{checked.stderr}\n{block}"


@documents
def test_python_in_documents_compiles(document: Path) -> None:
    for block in code_blocks(document, "python"):
        compile(block, document.name, "exec")


@documents
def test_links_in_documents_lead_somewhere(document: Path) -> None:
    for link in links(document):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        led_to = document.parent / path if path else document

        assert led_to.exists(), f"{document.name}: {link}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", led_to.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {slug(heading) for heading in headings}, f"{document.name}: {link}"


@documents
def test_tests_that_documents_name_exist(document: Path) -> None:
    for path, name in named_tests(document):
        assert (ROOT / path).exists(), path
        if name:
            assert f"def {name}(" in (ROOT / path).read_text(encoding="utf-8"), f"{path}::{name}"

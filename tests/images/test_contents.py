"""The images hold what they need and nothing else, and can be built only in the right direction."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from generate.third_party_notices import image_licences, packages
from tests.images.containers import inspect, python
from tests.support.images import CREATED, REVISION, VERSION, docker
from tests.support.project import ROOT

MEGABYTE = 1_000_000
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
PACKAGES = ("api", "fraud_detection", "fraudctl", "jobs")
LICENCES = {"LICENSE", "THIRD_PARTY_NOTICES"}
OURS = {"api": ("api", "fraud_detection"), "jobs": ("fraud_detection", "fraudctl", "jobs")}
TRAINING = ["sklearn", "mlflow", "skl2onnx", "scipy", "matplotlib", "pandas", "pyarrow", "kubernetes"]
FOUND = "import importlib.util, json; print(json.dumps([name for name in {} if importlib.util.find_spec(name)]))"
FILES = """
import json, pathlib
top = pathlib.Path("{}")
print(json.dumps([str(path.relative_to(top)) for path in top.rglob("*") if path.is_file()]))
"""


@pytest.fixture(params=["api", "jobs"])
def kind(request: pytest.FixtureRequest) -> str:
    """One image, then the other."""
    name: str = request.param
    return name


@pytest.fixture
def image(kind: str, request: pytest.FixtureRequest) -> str:
    """The image of that kind."""
    name: str = request.getfixturevalue(f"{kind}_image")
    return name


def files_of(packages: tuple[str, ...], root: Path = ROOT) -> set[str]:
    """Return the files of these packages: Python, and the data that pyproject.toml names."""
    modules = {str(path.relative_to(root)) for package in packages for path in (root / package).rglob("*.py")}
    data = {
        f"{package.replace('.', '/')}/{name}"
        for package, names in SETUPTOOLS["package-data"].items()
        for name in names
        if package.split(".")[0] in packages
    }
    return modules | data


def test_the_size_stays_within_its_budget(
    kind: str, image: str, python_image: str, capsys: pytest.CaptureFixture[str]
) -> None:
    added = (inspect(image, ".Size") - inspect(python_image, ".Size")) / MEGABYTE

    with capsys.disabled():
        print(f"\nthe {kind} image adds {added:.0f} MB to {python_image}")
    assert added <= {"api": 300, "jobs": 1200}[kind]


def test_holds_its_own_packages_and_what_is_shared(kind: str, image: str) -> None:
    baseline = {f"baseline/{name}" for name in ("manifest.json", "model.onnx", "reference_data.db", "rf_model.pkl")}
    commands = {"api": {"bin/sqlite3"} | baseline, "jobs": {"bin/sqlite3", "bin/fraudctl"}}

    held = {name for name in python(image, FILES.format("/app")) if not name.endswith(".pyc")}

    assert held == files_of(OURS[kind]) | commands[kind] | {f"licenses/{name}" for name in LICENCES}


def test_every_module_brings_its_bytecode(kind: str, image: str) -> None:
    """Otherwise a read-only container would compile them again at each start."""
    modules, without = python(
        image,
        """
import importlib.util, json, pathlib
modules = [module for folder in ("/app", "/opt/venv/lib") for module in pathlib.Path(folder).rglob("*.py")]
without = [str(module) for module in modules if not pathlib.Path(importlib.util.cache_from_source(module)).exists()]
print(json.dumps([len(modules), without]))
""",
    )

    assert modules > 1000
    assert without == []


@pytest.mark.parametrize(
    ("absent", "present"),
    [
        (["jobs", "fraudctl", *TRAINING], ["api", "flask", "gunicorn", "psycopg"]),
        (
            ["api", "gevent"],
            ["jobs", "fraudctl", *TRAINING, "psycopg", "flask", "gunicorn"],
        ),  # MLflow installs the last
    ],
    ids=["api", "jobs"],
)
def test_has_nothing_of_the_other_image(request: pytest.FixtureRequest, absent: list[str], present: list[str]) -> None:
    image = request.getfixturevalue(f"{request.node.callspec.id}_image")

    assert python(image, FOUND.format([*absent, *present])) == present


def test_holds_the_packages_that_the_notices_name(kind: str, image: str) -> None:
    installed = python(
        image,
        """
import json
from importlib.metadata import distributions
print(json.dumps([each.name for each in distributions()]))
""",
    )

    assert {re.sub(r"[-_.]+", "-", name).lower() for name in installed} == {each.name for each in packages(kind)}


def test_can_neither_compile_nor_install(kind: str, image: str) -> None:
    tools = ["gcc", "cc", "c++", "make", "ld", "pip", "pip3", "git", "curl", "wget", "python"]

    assert python(image, f"import json, shutil; print(json.dumps(list(filter(shutil.which, {tools}))))") == ["python"]
    assert python(image, FOUND.format(["pip", "setuptools", "wheel", "ensurepip", "numpy"])) == ["numpy"]


def test_group_0_may_write_where_data_go_and_no_user_anywhere_else(kind: str, image: str) -> None:
    odd = python(
        image,
        """
import json, os, pathlib
paths = [path for top in ("/app", "/opt/venv") for path in [pathlib.Path(top), *pathlib.Path(top).rglob("*")]]
known = [(path, path.stat()) for path in paths if not path.is_symlink()]
odd = [path for path, its in known if its.st_uid != 0 or its.st_mode & 0o022 or not its.st_mode & 0o004]
print(json.dumps([[str(path), oct(path.stat().st_mode & 0o777), path.stat().st_gid] for path in odd]))
""",
    )

    assert sorted(odd) == [["/app/data", "0o775", 0], ["/app/models", "0o775", 0]]


def test_starts_without_a_shell_as_a_user_with_a_number(kind: str, image: str) -> None:
    config = inspect(image, ".Config")

    starts = {"api": (["python"], ["-m", "api"]), "jobs": (["fraudctl"], ["--help"])}
    assert (config["Entrypoint"], config["Cmd"]) == starts[kind]
    assert (config["User"], config["WorkingDir"]) == ("10001:0", "/app")
    if kind == "api":
        assert config["Healthcheck"]["Test"][:2] == ["CMD", "python"]


def test_says_what_it_is(kind: str, image: str, python_image: str) -> None:
    labels = inspect(image, ".Config.Labels")

    named = {name.removeprefix("org.opencontainers.image."): value for name, value in labels.items()}
    assert named["title"] == f"fraud-detection-{kind}"
    assert (named["version"], named["revision"], named["created"]) == (VERSION, REVISION, CREATED)
    assert (named["licenses"], named["base.name"]) == (image_licences(kind), python_image)


@pytest.fixture
def checkout(tmp_path: Path, api_image: str, jobs_image: str) -> Path:
    """A copy of what the images are built from, so that the build can reuse their layers."""
    copied = tmp_path / "checkout"
    shutil.copytree(ROOT / "requirements", copied / "requirements")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, copied / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (".dockerignore", "Dockerfile.api", "Dockerfile.jobs", *LICENCES):
        shutil.copy(ROOT / name, copied)
    return copied


def build(checkout: Path, dockerfile: str, python_image: str, tag: str) -> subprocess.CompletedProcess[str]:
    arguments = ["--file", str(checkout / dockerfile), "--build-arg", f"PYTHON_IMAGE={python_image}", "--tag", tag]
    return docker("build", *arguments, str(checkout), exit_code=None)


@pytest.mark.parametrize(
    ("dockerfile", "module", "wrong"),
    [
        ("Dockerfile.api", "api/labels.py", "from jobs import training"),
        ("Dockerfile.api", "api/labels.py", "import sklearn"),
        ("Dockerfile.jobs", "jobs/training/due.py", "from api import app"),
        ("Dockerfile.jobs", "fraudctl/audit.py", "import gevent"),
    ],
)
def test_an_import_in_the_wrong_direction_ends_the_build(
    checkout: Path, python_image: str, dockerfile: str, module: str, wrong: str
) -> None:
    with (checkout / module).open("a", encoding="utf-8") as file:
        file.write(f"\n{wrong}\n")

    failed = build(checkout, dockerfile, python_image, "fraud-detection-test:wrong")

    assert failed.returncode != 0
    assert f"No module named '{wrong.split()[1]}'" in failed.stdout + failed.stderr


def test_nothing_enters_the_build_that_is_not_named(checkout: Path, python_image: str) -> None:
    strangers = [".env", ".api_token", "data/requests.db", "models/rf_model.pkl", "api/.env", "jobs/notes.txt",
                 "fraud_detection/secret.key", "fraud_detection/migrations/versions/dump.sql", "requirements/mine.txt",
                 "api/__pycache__/app.cpython-311.pyc", "tests/test_x.py", "creditcard.csv"]  # fmt: skip
    for name in strangers:
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text("a secret")
    (checkout / "Dockerfile").write_text(f"FROM {python_image}\nCOPY . /context\n")

    def context() -> set[str]:
        built = build(checkout, "Dockerfile", python_image, "fraud-detection-test:context")
        assert built.returncode == 0, built.stdout + built.stderr
        try:
            return set(python("fraud-detection-test:context", FILES.format("/context")))
        finally:
            docker("rmi", "fraud-detection-test:context")

    assert context() == files_of(PACKAGES, checkout) | {"requirements/api.txt", "requirements/jobs.txt", *LICENCES}
    (checkout / ".dockerignore").unlink()
    assert context() >= set(strangers)

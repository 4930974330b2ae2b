"""The packaged chart holds what an installation needs, lints clean, and is the same bytes each time."""

import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.chart.helm import CI, Helm
from tests.support.project import CHART


def package(helm: Helm, folder: Path, chart: Path = CHART) -> Path:
    """Return the archive that `helm package` writes for a release made at a fixed time."""
    folder.mkdir()
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
    subprocess.run(
        [helm.program, "package", str(chart), "-d", str(folder)], check=True, capture_output=True, env=environment
    )
    [archive] = folder.glob("fraud-detection-*.tgz")
    return archive


def files_in(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as tar:
        return {member.name.removeprefix("fraud-detection/"): tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]  # Helm writes files only


def test_packages_what_an_installation_needs(helm: Helm, tmp_path: Path) -> None:
    names = set(files_in(package(helm, tmp_path / "packed")))

    assert {"Chart.yaml", "values.yaml", "values.schema.json", "README.md", "UPGRADING.md", "LICENSE"} <= names
    assert {"templates/NOTES.txt", "templates/validate.yaml"} <= names
    assert {"files/rules/jobs.yaml", "files/dashboards/service.json"} <= names
    assert {str(path.relative_to(CHART)) for path in CHART.glob("files/*/*.*")} <= names
    assert {
        name for name in names if name.startswith(("ci/", "files/rules/tests/")) or name.endswith(".gotmpl")
    } == set()


def test_a_package_renders_as_the_folder_does(helm: Helm, tmp_path: Path) -> None:
    archive = package(helm, tmp_path / "packed")

    assert helm.template(ci="full", chart=archive) == helm.template(ci="full")


def test_a_package_is_small(helm: Helm, tmp_path: Path) -> None:
    assert package(helm, tmp_path / "packed").stat().st_size < 200_000


def test_two_packages_hold_the_same(helm: Helm, tmp_path: Path) -> None:
    shutil.copytree(CHART, tmp_path / "again" / "fraud-detection")  # a copy has other times and other inodes
    archives = [
        package(helm, tmp_path / "one"),
        package(helm, tmp_path / "two", tmp_path / "again" / "fraud-detection"),
    ]

    assert files_in(archives[0]) == files_in(archives[1])
    if helm.major >= 4:  # Helm 3 writes the time of packaging and ignores SOURCE_DATE_EPOCH
        assert archives[0].read_bytes() == archives[1].read_bytes()


@pytest.mark.parametrize("ci", CI)
def test_lints_clean(helm: Helm, ci: str) -> None:
    done = helm.run("lint", "--strict", str(CHART), "--values", str(CHART / "ci" / f"{ci}-values.yaml"))

    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 chart(s) linted, 0 chart(s) failed" in done.stdout + done.stderr
    assert "[WARNING]" not in done.stdout

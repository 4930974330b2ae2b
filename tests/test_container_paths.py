"""The paths inside the containers are the same in the images, the chart, compose.yaml and the documents."""

import re
from pathlib import Path

import pytest
import yaml

from fraud_detection.settings import JobSettings
from generate.variables import PATHS
from tests.support.project import CHART, ROOT

IN_THE_CHART = {name: path.default for name, path in PATHS.items() if path.default}
ONE_VOLUME = {"MODEL_PATH": "/app/data/models/rf_model.pkl"}  # `docker run` mounts /app/data alone
FOLDERS = {"/app/data", "/app/models"}


def image_environment(dockerfile: str) -> dict[str, str]:
    """The variables that an image sets."""
    text = (ROOT / dockerfile).read_text()
    return dict(re.findall(r"(\w+)=(\S+)", re.findall(r"(?m)^ENV ((?:.*\\\n)*.*)", text)[-1]))


@pytest.mark.parametrize("dockerfile", ["Dockerfile.api", "Dockerfile.jobs"])
def test_an_image_names_the_files_that_the_chart_names(dockerfile: str) -> None:
    in_the_image = {name: path for name, path in image_environment(dockerfile).items() if name in PATHS}

    assert {"MODEL_PATH", "LATEST_DB"} <= in_the_image.keys()
    expected = {"BASELINE_DIR": "/app/baseline", **IN_THE_CHART, **ONE_VOLUME}
    assert in_the_image == {name: expected[name] for name in in_the_image}
    assert f"-m 0775 {' '.join(sorted(FOLDERS))}\n" in (ROOT / dockerfile).read_text()


def test_the_baseline_is_where_the_image_and_the_chart_look_for_it() -> None:
    assert "COPY --from=baseline /app/baseline /app/baseline\n" in (ROOT / "Dockerfile.api").read_text()
    assert 'ternary "/app/baseline" "/app/models/baseline"' in (CHART / "templates/config/_config.tpl").read_text()


def test_the_chart_names_the_files_of_a_checkout_below_app() -> None:
    in_a_checkout = {each.name: f"/app/{each.default}" for each in JobSettings.variables()}
    of_its_own = {"TRAIN_DB": "/app/data/history.db"}  # so that history can be imported while the API runs

    assert {name: in_a_checkout[name] for name in IN_THE_CHART} | of_its_own == IN_THE_CHART


def test_the_chart_mounts_and_requires_the_folders_of_its_files() -> None:
    required = re.findall(r'"(\w+)" "(/app/\w+/)"', (CHART / "templates/_validate.tpl").read_text())
    mounted = re.findall(r"mountPath: (/app/\w+)\n", (CHART / "templates/_pod.tpl").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())["config"]

    assert {values[name] for name, _ in required} == set(IN_THE_CHART.values())
    assert all(values[name].startswith(folder) for name, folder in required)
    assert set(mounted) == FOLDERS | {"/app/config"}


def test_compose_mounts_the_folders_and_names_the_model_of_the_chart() -> None:
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())

    assert compose["x-shared-settings"]["MODEL_PATH"] == IN_THE_CHART["MODEL_PATH"]
    for service in (compose["x-job"], compose["services"]["fraud_api"]):
        assert {volume.split(":")[1] for volume in service["volumes"] if ":" in volume} == FOLDERS


PLACES = ("docs/**/*.md", "k8s-dev/*.*", "charts/**/*.gotmpl", "charts/**/*.txt", "fraud_detection/read_sqlite.py")
TEXTS = sorted(path for pattern in PLACES for path in ROOT.glob(pattern))


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_texts_name_files_that_exist_in_a_container(path: Path) -> None:
    named = set(re.findall(r"/app/(?:data|models)/[\w/]+\.(?:db|json|pkl)\b(?!-)", path.read_text()))

    assert named <= {*IN_THE_CHART.values(), *ONE_VOLUME.values()}

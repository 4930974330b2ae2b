"""Run the real Prometheus and Pushgateway, and query them."""

import contextlib
import json
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.support.dashboards import metrics_in
from tests.support.ports import free_port
from tests.support.programs import program
from tests.support.waiting import PATIENCE_SECONDS, answers, wait_until


def promtool() -> str:
    return program("PROMTOOL", "promtool", "https://prometheus.io/download")


@contextlib.contextmanager
def pushgateway(arguments: Sequence[str], data: Path, port: str) -> Iterator[str]:
    """Run a Pushgateway with the chart's arguments and the folder `data` as its volume; yield its address."""
    found = program("PUSHGATEWAY", "prometheus-pushgateway", "Debian: apt-get install prometheus-pushgateway")
    ours = [each.replace("/data/", f"{data}/").replace(":9091", f"127.0.0.1:{port}") for each in arguments]
    if not any(each.startswith("--persistence.file=") for each in ours):
        ours.append("--persistence.file=")  # the upstream default; Debian's package keeps figures in a file
    with _running([found, *ours], f"http://127.0.0.1:{port}", data.parent / "pushgateway.log") as url:
        yield url


@contextlib.contextmanager
def prometheus(scrapes: Sequence[Mapping[str, Any]], rules: Mapping[str, Any], folder: Path) -> Iterator[str]:
    """Run a Prometheus that scrapes and evaluates once a second; yield its address."""
    found = program("PROMETHEUS", "prometheus", "https://prometheus.io/download")
    (folder / "rules.yaml").write_text(json.dumps(rules))
    (folder / "prometheus.yaml").write_text(
        yaml.safe_dump(
            {
                "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                "rule_files": ["rules.yaml"],
                "scrape_configs": list(scrapes),
            }
        )
    )
    port = free_port()
    command = [
        found,
        f"--config.file={folder / 'prometheus.yaml'}",
        f"--storage.tsdb.path={folder / 'series'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with _running(command, f"http://127.0.0.1:{port}", folder / "prometheus.log") as url:
        yield url


@contextlib.contextmanager
def _running(command: Sequence[str], url: str, log: Path) -> Iterator[str]:
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        wait_until(lambda: answers(f"{url}/-/ready"), process=process, otherwise=log.read_text)
        yield url
    finally:
        process.terminate()
        process.wait(PATIENCE_SECONDS)


def ask(prometheus_url: str, path: str, **parameters: str) -> Any:
    """Return the data of an answer of Prometheus's API; a refusal fails the test."""
    url = f"{prometheus_url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310  our own address
            return json.load(answer)["data"]
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{parameters}: {error.read().decode()}") from error


def metrics_of(prometheus_url: str, expression: str) -> set[str]:
    """Return the names of all metrics in a PromQL expression, as Prometheus itself parses it."""
    return set(metrics_in(ask(prometheus_url, "parse_query", query=expression)))

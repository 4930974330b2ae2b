"""Run the API and the jobs of an installation, scraped by a real Prometheus as the chart configures it."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

from fraud_detection.model.files import ONNX
from fraud_detection.model.read import current_version
from fraud_detection.model.write import promote
from tests.chart.observability import ask, prometheus, pushgateway
from tests.support.environment import TOKEN
from tests.support.installation import SmallInstallation, made_up
from tests.support.ports import free_port
from tests.support.project import ROOT
from tests.support.service import api_process
from tests.support.waiting import wait_until


@contextlib.contextmanager
def real_run(
    pushgateway_arguments: Sequence[str], rules: Mapping[str, Any], kubernetes: Mapping[str, list[str]], folder: Path
) -> Iterator[str]:
    """Train, serve, score, label, refuse, look for drift, retrain; yield the address of the Prometheus that saw it.

    `kubernetes` are series that only a cluster has: labels by name.
    """
    (folder / "figures").mkdir()
    (folder / "installation" / "data").mkdir(parents=True)
    with contextlib.ExitStack() as running:
        gateway = running.enter_context(pushgateway(pushgateway_arguments, folder / "figures", free_port()))
        cluster = running.enter_context(_exposition(kubernetes))
        installation = SmallInstallation(folder / "installation", {"PUSHGATEWAY_URL": gateway}).make()
        _come_into_service(installation)
        environment = {**installation.environment, "API_TOKEN": TOKEN}
        api = running.enter_context(api_process(environment, folder / "api.log"))
        scrapes = [_scrape_api(api), _scrape("pushgateway", gateway), _scrape("kubernetes", cluster)]
        url = running.enter_context(prometheus(scrapes, rules, folder))
        with ThreadPoolExecutor() as pool:
            done = pool.map(lambda job: _job(installation, *job), [["detect_drift"], ["retrain", "--force"]])
            _wait_for(url, "fraud_storage_ok")
            _use(api)
            list(done)
        running.enter_context(_in_use(api))
        _promote_a_broken_version(installation)
        for expression in (
            "fraud_drift_d_max",
            "fraud_retrain_rejections_in_a_row > 0",
            "increase(fraud_auth_requests_total[1m]) > 0",
            'ALERTS{alertname="FraudModelRefused"}',
        ):
            _wait_for(url, expression)
        yield url


def _come_into_service(installation: SmallInstallation) -> None:
    """Train a model on labelled history, score later hours with it, and import labels from which a worse one learns."""
    installation.import_labelled(*made_up(2000, seed=1), age_days=100)
    _job(installation, "retrain")
    installation.score(made_up(1200, seed=2)[0] + [0, 0, 0.5], age_days=1)
    matrix, is_fraud = made_up(1000, seed=3)
    wrong = is_fraud.copy()
    wrong[:400] = np.roll(is_fraud[:400], 5)
    installation.import_labelled(matrix, wrong, age_days=35)


def _job(installation: SmallInstallation, name: str, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"jobs.{name}", *arguments],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **installation.environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def _use(api: str) -> None:
    """Score and label, also with requests that the API rejects."""
    rows = made_up(200, seed=4)[0].tolist()
    names = [f"order-{number}" for number in range(len(rows))]
    label = {"transaction_id": "order-1", "is_fraud": True, "source": "chargeback"}
    assert _post(f"{api}/predict", {"data": rows, "transaction_ids": names}) == 200
    assert _post(f"{api}/labels", {"labels": [label]}) == 200
    assert _post(f"{api}/predict", {"data": [[1, 2]]}) == 422
    assert _post(f"{api}/predict", {"data": rows}, token="wrong") == 401


@contextlib.contextmanager
def _in_use(api: str) -> Iterator[None]:
    """Use the API every second until the block ends: a rate that falls to 0 makes ratios and quantiles NaN."""
    is_enough = threading.Event()

    def keep_using() -> None:
        while not is_enough.wait(1.0):
            _use(api)

    with ThreadPoolExecutor(1) as pool:
        using = pool.submit(keep_using)
        try:
            yield
        finally:
            is_enough.set()
        using.result()


def _post(url: str, body: Mapping[str, Any], token: str = TOKEN) -> int:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)  # noqa: S310  our own address
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def _promote_a_broken_version(installation: SmallInstallation) -> None:
    folder = installation.models_dir
    serving = str(current_version(folder))
    broken = "20300101T000000Z-" + "0" * 12
    shutil.copytree(folder / serving, folder / broken)
    (folder / broken / ONNX).write_bytes(b"not what the manifest describes")
    promote(folder, broken, actor="test", reason="to be refused")


def _scrape_api(url: str) -> dict[str, Any]:
    return _scrape("api", url) | {"authorization": {"type": "Bearer", "credentials": TOKEN}}


def _scrape(what: str, url: str) -> dict[str, Any]:
    """Return a scrape with the labels that the operator gives to targets; they override those of the API."""
    labels = {"namespace": "fraud", "service": f"fraud-detection-{what}"}
    if what == "api":  # the monitor of the Pushgateway drops these
        labels |= {"endpoint": "http", "pod": "fraud-detection-api-5d4f", "container": "api"}
    return {
        "job_name": f"fraud-detection-{what}",
        "honor_labels": what != "api",
        "static_configs": [{"targets": [url.removeprefix("http://")], "labels": labels}],
    }


def _wait_for(prometheus_url: str, expression: str) -> None:
    def found() -> object:
        return ask(prometheus_url, "query", query=expression)["result"]

    wait_until(found, otherwise=lambda: f"{expression} found nothing")


@contextlib.contextmanager
def _exposition(series: Mapping[str, list[str]]) -> Iterator[str]:
    """Serve series of value 1; yield the address."""
    lines = [
        f'{name}{{namespace="fraud",{labels}}} 1\n' for name, all_labels in series.items() for labels in all_labels
    ]

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write("".join(lines).encode())

        def log_request(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()

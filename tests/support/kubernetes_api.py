"""Serve a Kubernetes API for tests: one Deployment behind TLS, and pods that serve the current model of a folder."""

import copy
import datetime
import ipaddress
import json
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fraud_detection.model.files import CURRENT
from fraud_detection.model.read import read_manifest
from jobs.rollout.deployment import MODEL_DIGEST

NAMESPACE, NAME = "payments", "fraud-detection-api"
PATH = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{NAME}"
EXCEEDED = 'ReplicaSet "fraud-detection-api-5f7d" has timed out progressing.'


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: dict[str, list[str]]
    body: Any
    content_type: str | None


@dataclass
class Cluster:
    """The state of Kubernetes, and the progress of a restart; `start` makes it answer.

    After a restart the first look finds it unobserved, the second half-way, the third finished.
    """

    folder: Path
    """Takes the files of the service account."""
    replace_pods: Callable[[], bool] = lambda: True
    """Replaces the old pods by new ones; returns False if the new ones are not ready and the old ones keep running."""
    crashing: set[str] = field(default_factory=set)
    """Digests with which no pod becomes ready."""
    gives_up: bool = True
    """Whether Kubernetes reports that a rollout failed, or waits for ever."""
    first_answers: list[tuple[int, str]] = field(default_factory=list)
    """Status and message of the first answers."""
    refused: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Status and message of every answer to a method."""
    answers_lost: int = 0
    """How many restarts start although their answer is lost."""
    answers_in_html: bool = False
    """Whether the answers are HTML, as from a proxy in between."""
    token: str = "token-1"
    requests: list[Request] = field(default_factory=list)
    deployment: dict[str, Any] = field(
        default_factory=lambda: {
            "metadata": {"name": NAME, "namespace": NAMESPACE, "generation": 1},
            "spec": {"replicas": 1, "template": {"metadata": {"annotations": {"checksum/config": "c"}}}},
            "status": {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1},
        }
    )
    looks_since_restart: int = 3

    def start(self) -> ThreadingHTTPServer:
        certificate = _make_certificates(self.folder)
        (self.folder / "token").write_text(f"{self.token}\n")
        (self.folder / "namespace").write_text(NAMESPACE)
        server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return server

    @property
    def annotations(self) -> dict[str, str]:
        annotations: dict[str, str] = self.deployment["spec"]["template"]["metadata"]["annotations"]
        return annotations

    @property
    def restarts(self) -> list[str]:
        """The digests for which a restart was asked for, in order."""
        return [
            request.body["spec"]["template"]["metadata"]["annotations"][MODEL_DIGEST]
            for request in self.requests
            if request.method == "PATCH" and "dryRun" not in request.query
        ]

    def scale(self, replicas: int) -> None:
        self.deployment["spec"]["replicas"] = replicas
        self.deployment["status"] = {"observedGeneration": self.deployment["metadata"]["generation"]} | (
            dict.fromkeys(("replicas", "updatedReplicas", "availableReplicas"), replicas) if replicas else {}
        )

    def answer(self, request: Request, token: str | None) -> tuple[int, object]:
        self.requests.append(request)
        if token != f"Bearer {self.token}":
            (self.folder / "token").write_text(f"{self.token}\n")  # as the kubelet does, sooner or later
            return 401, {"message": "Unauthorized"}
        if self.first_answers:
            status, message = self.first_answers.pop(0)
            return status, {"message": message}
        if request.method in self.refused:
            status, message = self.refused[request.method]
            return status, {"message": message}
        if request.path != PATH:
            return 404, {"message": f'deployments.apps "{request.path.rpartition("/")[2]}" not found'}
        if request.method == "PATCH":
            patched = self._patched(request)
            self.answers_lost -= 1
            return (503, {"message": "lost"}) if self.answers_lost >= 0 else (200, patched)
        self._progress()
        return 200, self.deployment

    def _patched(self, request: Request) -> object:
        patched = copy.deepcopy(self.deployment)
        patched["spec"]["template"]["metadata"]["annotations"] |= request.body["spec"]["template"]["metadata"][
            "annotations"
        ]
        if "dryRun" not in request.query and patched != self.deployment:
            patched["metadata"]["generation"] += 1
            self.deployment, self.looks_since_restart = patched, 0
        return patched

    def _progress(self) -> None:
        replicas, generation = self.deployment["spec"]["replicas"], self.deployment["metadata"]["generation"]
        self.looks_since_restart += 1
        if replicas == 0 or self.looks_since_restart not in {2, 3}:
            return
        status: dict[str, Any] = {"observedGeneration": generation, "updatedReplicas": 1, "replicas": replicas + 1}
        self.deployment["status"] = status | {"availableReplicas": replicas}
        if self.looks_since_restart == 2:
            return
        if self.annotations[MODEL_DIGEST] not in self.crashing and self.replace_pods():
            self.scale(replicas)
        elif self.gives_up:
            self.deployment["status"]["conditions"] = [
                {"type": "Available", "status": "True", "reason": "MinimumReplicasAvailable", "message": "fine"},
                {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": EXCEEDED},
            ]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        cluster = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                url = urlsplit(self.path)
                body = self.rfile.read(int(self.headers["Content-Length"] or 0)) or b"null"
                request = Request(
                    self.command, url.path, parse_qs(url.query), json.loads(body), self.headers["Content-Type"]
                )
                status, answer = cluster.answer(request, self.headers["Authorization"])
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", "/elsewhere")
                self.end_headers()
                self.wfile.write(b"<html>" if cluster.answers_in_html else json.dumps(answer).encode())

            do_PATCH = do_GET  # noqa: N815  the name that http.server looks for

            def log_request(self, *_: object) -> None:
                return

        return Handler


@dataclass
class Pods:
    """The pods behind the Service, which answer GET /model with the model that was current when they started."""

    models_dir: Path
    serving: str | None = None
    """A digest; None while no pod answers."""
    before: str | None = None
    stale: int = 0
    """How many answers after a restart still come from an old pod, every other one."""
    asked: int = 0

    def restart(self) -> bool:
        self.before, self.asked = self.serving, 0
        self.serving = read_manifest(self.models_dir / CURRENT).digest
        return True

    def start(self) -> ThreadingHTTPServer:
        pods = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                pods.asked += 1
                is_old = pods.asked % 2 == 0 and pods.asked <= 2 * pods.stale
                digest = pods.before if is_old else pods.serving
                self.send_response(200 if digest and self.path == "/model" else 503)
                self.end_headers()
                self.wfile.write(json.dumps({"digest": digest}).encode())

            def log_request(self, *_: object) -> None:
                return

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return server


def _make_certificates(folder: Path) -> Path:
    """Write ca.crt, as older clusters made it, without key identifiers, and return a server's certificate and key."""
    now = datetime.datetime.now(datetime.UTC)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kubernetes")])

    def signed(name: x509.Name, public: ec.EllipticCurvePublicKey, extension: x509.ExtensionType) -> x509.Certificate:
        builder = x509.CertificateBuilder(ca_name, name, public, x509.random_serial_number())
        builder = builder.not_valid_before(now - datetime.timedelta(days=1))
        builder = builder.not_valid_after(now + datetime.timedelta(days=1))
        return builder.add_extension(extension, critical=True).sign(ca_key, hashes.SHA256())

    ca = signed(ca_name, ca_key.public_key(), x509.BasicConstraints(ca=True, path_length=None))
    (folder / "ca.crt").write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    certificate = signed(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kube-apiserver")]),
        key.public_key(),
        x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
    )
    path = folder / "server.pem"
    path.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path

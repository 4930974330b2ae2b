"""Each part of gunicorn on which api/ builds is there: an upgrade that drops one fails here, with its name."""

import ast
import inspect
import io
import logging
import socket
from collections.abc import Callable, Iterator
from typing import Any

import gunicorn.config
import gunicorn.http
import pytest
from gunicorn import glogging, util
from gunicorn.arbiter import Arbiter
from gunicorn.http import RequestParser, errors, wsgi
from gunicorn.http.unreader import SocketUnreader
from gunicorn.sock import TCPSocket
from gunicorn.workers.ggevent import GeventWorker

from tests.support.project import ROOT

IMPORTED = {
    "gunicorn": {"glogging", "util"},
    "gunicorn.arbiter": {"Arbiter"},
    "gunicorn.config": {"Config"},
    "gunicorn.http": {"RequestParser", "errors", "wsgi"},
    "gunicorn.http.errors": {"LimitRequestHeaders", "ParseException"},
    "gunicorn.http.unreader": {"SocketUnreader"},
    "gunicorn.workers.ggevent": {"GeventWorker"},
}
CLASSES: dict[Any, str] = {
    util: "close_graceful http_date",
    Arbiter: "WORKER_BOOT_ERROR",
    gunicorn.config.Config: "set",
    errors: "ParseException LimitRequestLine LimitRequestHeaders UnsupportedTransferCoding ExpectationFailed",
    wsgi: "create Response",
    wsgi.Response: "start_response write should_close send_headers _emit_body close",
    RequestParser: "__next__ finish_body",
    SocketUnreader: "chunk",
    GeventWorker: "patch init_process handle_exit run notify",
    TCPSocket: "FAMILY",
    glogging.Logger: "setup",
}
REQUEST = b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
CHUNKED = b"POST /predict HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"


@pytest.fixture
def connection() -> Iterator[Callable[[bytes], tuple[Any, Any, Any]]]:
    """Let gunicorn parse what a client sends: the parser, the request and the response to it."""
    ours, theirs = socket.socketpair()

    def parse(sent: bytes) -> tuple[Any, Any, Any]:
        theirs.sendall(sent)
        configuration, address = gunicorn.config.Config(), ("127.0.0.1", 1)
        parser = RequestParser(configuration, ours, address)
        request = next(parser)
        response, _ = wsgi.create(request, ours, address, address, configuration, response_class=wsgi.Response)
        return parser, request, response

    yield parse
    ours.close()
    theirs.close()


@pytest.mark.parametrize(
    ("name", "owner"), [(name, owner) for owner, names in CLASSES.items() for name in names.split()]
)
def test_a_class_has_what_we_use_or_override(name: str, owner: Any) -> None:
    assert hasattr(owner, name)


@pytest.mark.parametrize("name", ["buf", "sock"])
def test_an_unreader_has_what_we_read(connection: Callable[[bytes], tuple[Any, Any, Any]], name: str) -> None:
    parser, _, _ = connection(REQUEST)

    assert hasattr(parser.unreader, name)
    assert isinstance(parser.unreader.buf, io.BytesIO)


@pytest.mark.parametrize(
    "name", ["req", "sock", "status", "headers", "headers_sent", "chunked", "req.version", "req.body.failed"]
)
def test_a_response_has_what_we_read(connection: Callable[[bytes], tuple[Any, Any, Any]], name: str) -> None:
    value = connection(REQUEST)[2]

    for part in name.split("."):
        assert hasattr(value, part), part
        value = getattr(value, part)


@pytest.mark.parametrize(("sent", "name"), [(REQUEST, "length"), (CHUNKED, "parser")], ids=["length", "parser"])
def test_the_reader_of_a_body_says_what_is_unread(
    connection: Callable[[bytes], tuple[Any, Any, Any]], sent: bytes, name: str
) -> None:
    _, request, _ = connection(sent)

    assert getattr(request.body.reader, name)
    request.body.read()
    assert not getattr(request.body.reader, name)


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (GeventWorker, "sockets"),
        (GeventWorker, "cfg"),
        (GeventWorker, "alive"),
        (GeventWorker, "worker_connections"),
        (GeventWorker, "wsgi"),
        (TCPSocket, "sock"),
    ],
)
def test_what_lives_in_another_process_sets_what_we_read(owner: type, name: str) -> None:
    methods = [method for kind in owner.__mro__ for method in vars(kind).values() if inspect.isfunction(method)]

    assert any(f"self.{name} = " in inspect.getsource(method) for method in methods)


@pytest.mark.parametrize(
    ("function", "parameter"), [(RequestParser.finish_body, "max_bytes"), (wsgi.create, "response_class")]
)
def test_a_function_takes_what_we_give(function: Callable[..., object], parameter: str) -> None:
    assert parameter in inspect.signature(function).parameters


def test_a_logger_has_the_log_that_we_pass_on() -> None:
    assert isinstance(glogging.Logger(gunicorn.config.Config()).error_log, logging.Logger)


def test_our_settings_and_hooks_are_those_of_gunicorn() -> None:
    """Read, not imported: the module needs a token, and gunicorn ignores a name that it does not know."""
    tree = ast.parse((ROOT / "api" / "gunicorn_conf.py").read_text(encoding="utf-8"))
    assigned = {name.id for node in tree.body if isinstance(node, ast.Assign) for name in ast.walk(node.targets[0])
                if isinstance(name, ast.Name)}  # fmt: skip
    hooks = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}

    ours = {name for name in assigned | hooks if not name.startswith("_")}
    assert {"worker_class", "keepalive", "graceful_timeout", "worker_exit"} <= ours
    assert ours - gunicorn.config.make_settings().keys() == set()


def test_nothing_else_of_gunicorn_is_imported() -> None:
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in sorted((ROOT / "api").glob("*.py"))]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    imports = [
        node for node in nodes if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gunicorn")
    ]
    plain = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]

    named = {(node.module or "", alias.name) for node in imports for alias in node.names}
    found = {(module, name) for module, name in named if module.startswith("gunicorn")}
    assert found == {(module, name) for module, names in IMPORTED.items() for name in names}
    assert [name for name in plain if name.startswith("gunicorn")] == []

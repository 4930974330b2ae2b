import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import gevent
import gevent.socket
import pytest
from gunicorn.http.errors import LimitRequestHeaders

from api import connections as module
from api.connections import Connection, Connections

Open = Callable[[Connections], tuple[Connection, socket.socket, "gevent.Greenlet[[], bytes]"]]


@pytest.fixture
def opened() -> Iterator[Open]:
    """Open a connection whose greenlet waits for a request; give it, the client's end and the greenlet."""
    with ExitStack() as stack:

        def open_one(
            connections: Connections,
        ) -> tuple[Connection, socket.socket, "gevent.Greenlet[[], bytes]"]:
            ours, theirs = socket.socketpair()
            stack.enter_context(theirs)
            client = stack.enter_context(gevent.socket.socket(fileno=ours.detach()))
            connection = Connection(client, connections, keepalive_seconds=60.0)
            connections.add(connection)
            waiting = gevent.spawn(connection.chunk)
            gevent.sleep(0)
            return connection, theirs, waiting

        yield open_one


def told_to_go(*connections: Connection) -> list[bool]:
    return [connection.is_told_to_go for connection in connections]


def test_at_the_limit_the_one_that_rested_longest_goes(opened: Open) -> None:
    connections = Connections(limit=3)
    (first, _, waiting), (second, client, _) = opened(connections), opened(connections)

    third, _, _ = opened(connections)
    assert told_to_go(first, second, third) == [True, False, False]
    with pytest.raises(TimeoutError):
        waiting.get()
    assert first.outcome == "crowded"
    client.sendall(b"GET ")
    gevent.sleep(0.01)
    second.expect_request()
    second.state = "resting"
    fourth, _, _ = opened(connections)

    assert told_to_go(second, third, fourth) == [False, True, False]


def test_strangers_go_before_a_client_that_brought_a_token(opened: Open) -> None:
    connections = Connections(limit=3)
    known, _, _ = opened(connections)
    known.is_known = True
    stranger, _, _ = opened(connections)

    opened(connections)

    assert told_to_go(known, stranger) == [False, True]


def test_a_request_in_work_or_just_arrived_is_not_given_up(opened: Open) -> None:
    connections = Connections(limit=4)
    (working, client, _), (arrived, other_client, _) = opened(connections), opened(connections)
    client.sendall(b"GET / HTTP/1.1\r\n\r\n")
    gevent.sleep(0.01)
    assert working.state == "working"
    resting, _, _ = opened(connections)
    other_client.sendall(b"GET / HTTP/1.1\r\n\r\n")  # the greenlet has not read it yet

    opened(connections)

    assert told_to_go(working, arrived, resting) == [False, False, True]


def test_without_one_that_may_go_room_is_made_later(opened: Open) -> None:
    connections = Connections(limit=1)
    connection, _, _ = opened(Connections(limit=9))
    connection.state = "working"
    connections.add(connection)
    connection.state = "resting"

    connections.make_room()

    assert told_to_go(connection) == [True]


def test_the_slowest_sender_goes_when_too_many_bytes_are_being_read(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_BYTES_BEING_READ", 2500)
    connections = Connections(limit=9)
    senders = [opened(connections) for _ in range(3)]
    more = []
    for connection, client, waiting in senders:
        client.sendall(b"x" * 1000)
        waiting.get()
        more.append(gevent.spawn(connection.chunk, 1000))
        gevent.sleep(0)

    first, second, third = (connection for connection, _, _ in senders)
    assert told_to_go(first, second, third) == [True, False, False]
    assert connections.bytes_being_read == 2000
    with pytest.raises(TimeoutError):
        more[0].get()
    for _, client, _ in senders[1:]:
        client.sendall(b"x" * 1000)
    gevent.joinall(more[1:])
    assert connections.bytes_being_read == 0
    more[2] = gevent.spawn(third.chunk, 1000)
    gevent.sleep(0)
    with pytest.raises(TimeoutError):
        second.chunk(1000)  # it began before the third one, which may go on
    assert told_to_go(second, third) == [True, False]
    assert connections.bytes_being_read == 2000


def test_a_head_that_is_too_large_is_refused_before_it_is_whole(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_HEAD_BYTES", 1000)
    connection, client, waiting = opened(Connections(limit=9))
    client.sendall(b"x" * 1001)
    waiting.get()

    with pytest.raises(LimitRequestHeaders):
        connection.chunk()

    connection.is_in_head = False
    client.sendall(b"x")
    assert connection.chunk() == b"x"


def test_a_stranger_may_rest_for_a_short_time_and_a_known_client_for_long(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ANONYMOUS_SECONDS", 0.01)
    connections = Connections(limit=9)
    (stranger, client, _), (known, other_client, _) = opened(connections), opened(connections)
    known.is_known = True
    client.sendall(b"x")
    other_client.sendall(b"x")
    gevent.sleep(0.01)
    for connection in (stranger, known):
        connection.expect_request()
    waiting = [gevent.spawn(connection.chunk) for connection in (stranger, known)]

    with pytest.raises(TimeoutError):
        waiting[0].get()

    assert (stranger.outcome, waiting[1].ready()) == ("idle", False)


def test_a_client_that_takes_no_answer_may_be_told_to_go(opened: Open) -> None:
    connections = Connections(limit=2)
    connection, _, waiting = opened(connections)
    waiting.kill()
    sending = gevent.spawn(connection.send, b"x" * 10_000_000)
    gevent.sleep(0)
    assert connection.state == "sending"

    opened(connections)

    with pytest.raises(TimeoutError):
        sending.get()
    assert connection.outcome == "crowded"


def test_a_connection_is_counted_while_it_is_open_and_once_it_has_ended(opened: Open) -> None:
    connections = Connections(limit=9)
    first, _, _ = opened(connections)
    opened(connections)

    first.end("broken")
    connections.remove(first)

    assert connections.states() == {"resting": 1}
    assert connections.ended == {"broken": 1}


def test_a_client_that_sends_without_pause_has_no_more_time_than_another(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection, client, waiting = opened(Connections(limit=9))
    monkeypatch.setattr(module, "REQUEST_SECONDS", 0.0)
    client.sendall(b"x" * 10_000)
    waiting.get()

    with pytest.raises(TimeoutError):
        connection.chunk()

    assert connection.outcome == "slow"


def test_a_client_that_sends_without_pause_lets_others_have_their_turn(opened: Open) -> None:
    connection, client, waiting = opened(Connections(limit=9))
    client.sendall(b"x" * 10_000)
    waiting.get()
    turns: list[str] = []
    other = gevent.spawn(turns.append, "other")

    connection.chunk()

    turns.append("received")
    other.join()
    assert turns == ["other", "received"]


def test_a_body_that_is_given_up_is_not_taken_for_one_that_the_client_ended(opened: Open) -> None:
    connection, client, waiting = opened(Connections(limit=9))
    client.sendall(b"x")
    waiting.get()
    more = gevent.spawn(connection.chunk)
    gevent.sleep(0)

    connection.leave("crowded")  # before it waits in recv, which then returns as at the client's end

    with pytest.raises(TimeoutError, match="told to go"):
        more.get()

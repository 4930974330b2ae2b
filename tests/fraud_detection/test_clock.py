"""Ids and times always increase, and each id carries its time."""

import time
from datetime import UTC, datetime
from uuid import UUID

import pytest

from fraud_detection.clock import Clock, parse_timestamp, timestamp


def test_ids_and_times_increase_even_when_the_wall_clock_steps_back(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    before = clock.tick()
    hour_ago = time.time_ns() - 3_600_000_000_000
    monkeypatch.setattr(time, "time_ns", lambda: hour_ago)

    after = [clock.tick() for _ in range(3)]

    assert [before, *after] == sorted([before, *after])
    assert len({request_id for _, request_id in after}) == 3


def test_the_id_is_a_uuid_of_version_7_that_carries_the_time() -> None:
    ts, request_id = Clock().tick()

    uuid = UUID(request_id)

    assert (uuid.version, uuid.variant) == (7, "specified in RFC 4122")
    assert uuid.int >> 80 == int(parse_timestamp(ts).timestamp() * 1000)


def test_a_timestamp_is_read_back_as_it_was() -> None:
    moment = datetime(2026, 8, 22, 10, 15, 30, 5, tzinfo=UTC)

    assert parse_timestamp(timestamp(moment)) == moment

"""Ids and times always increase, and each id carries its time."""

import time
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from fraud_detection.clock import Clock, parse_timestamp, stored_time, timestamp


def test_ids_and_times_increase_even_when_the_wall_clock_steps_back(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    before = clock.tick()
    hour_ago = time.time_ns() - 3_600_000_000_000
    monkeypatch.setattr(time, "time_ns", lambda: hour_ago)

    after = [clock.tick() for _ in range(3)]

    assert [before, *after] == sorted([before, *after])
    assert len({request_id for _, request_id in after}) == 3


def at(monkeypatch: pytest.MonkeyPatch, moment: datetime) -> None:
    """Set the wall clock."""
    monkeypatch.setattr(time, "time_ns", lambda: int(moment.timestamp()) * 1_000_000_000)


def test_a_jump_of_the_wall_clock_does_not_stay_in_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now, next_year = datetime(2026, 8, 22, 10, tzinfo=UTC), datetime(2027, 8, 22, 10, tzinfo=UTC)
    clock = Clock()
    ticks = []
    for moment in (now, next_year, now + timedelta(seconds=5), now + timedelta(seconds=5), now + timedelta(seconds=6)):
        at(monkeypatch, moment)
        ticks.append(clock.tick())

    times, ids = zip(*ticks, strict=True)
    assert [ts[:19] for ts in times] == [
        "2026-08-22 10:00:00", "2027-08-22 10:00:00", "2026-08-22 10:00:05", "2026-08-22 10:00:05",
        "2026-08-22 10:00:06",
    ]  # fmt: skip
    assert times[2] < times[3]
    assert list(ids) == sorted(set(ids))
    assert {UUID(request_id).version for request_id in ids} == {7}


def test_after_a_large_step_back_the_time_is_that_of_the_wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime(2026, 8, 22, 10, tzinfo=UTC)
    clock = Clock()
    at(monkeypatch, now)
    before = clock.tick()
    at(monkeypatch, now - timedelta(days=400))

    after = clock.tick()

    assert after[0] == timestamp(now - timedelta(days=400))
    assert before[1] < after[1]


def test_the_id_is_a_uuid_of_version_7_that_carries_the_time() -> None:
    ts, request_id = Clock().tick()

    uuid = UUID(request_id)

    assert (uuid.version, uuid.variant) == (7, "specified in RFC 4122")
    assert uuid.int >> 80 == int(parse_timestamp(ts).timestamp() * 1000)


def test_a_timestamp_is_read_back_as_it_was() -> None:
    moment = datetime(2026, 8, 22, 10, 15, 30, 5, tzinfo=UTC)

    assert parse_timestamp(timestamp(moment)) == moment


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("2024-03-05", "2024-03-05 00:00:00.000000"),
        ("2024-03-05 06:07", "2024-03-05 06:07:00.000000"),
        ("2024-03-05T06:07:08", "2024-03-05 06:07:08.000000"),
        ("2024-03-05T06:07:08Z", "2024-03-05 06:07:08.000000"),
        ("2024-03-05 06:07:08.9", "2024-03-05 06:07:08.900000"),
        ("2024-03-05 06:07:08,123456789Z", "2024-03-05 06:07:08.123456"),
        ("2024-03-05 06:07:08.5+00", "2024-03-05 06:07:08.500000"),
        ("2024-03-05T06:07:08-0530", "2024-03-05 11:37:08.000000"),
        ("2024-03-05T06:07+05:30", "2024-03-05 00:37:00.000000"),
        (" 2024-03-05 ", "2024-03-05 00:00:00.000000"),
    ],
)
def test_a_time_is_read_as_it_is_written_out(text: str, stored: str) -> None:
    assert stored_time(text) == stored


@pytest.mark.parametrize(
    "text",
    [
        *("", "noon", "20240305", "20240305T060708Z", "20240305060708Z", "20240305060708123", "2024-03-05060708"),
        *("2024-W10-2", "2024W102", "2024-065", "2024065", "2024-03", "24-03-05", "05.03.2024", "03/05/2024"),
        *("1709618828", "1709618828.5", "1709618828000", "2024-03-05T24:00:00", "2024-03-05T06", "2024-03-05T0607"),
        *("2024-03-05x06:07:08", "2024-03-05006:07", "2024-03-05T06:07:60", "2024-03-05T06:60", "2024-02-30"),
        *("2024-03-05T06:07:08+25:00", "2024-03-05T06:07:08 UTC", "2024-03-05T06:07:08.Z", "2024-03-05T06:07:08+5"),
        *("2024-03-05+01:00", "9999-12-31T23:30:00-01:00", "0001-01-01T00:30:00+01:00", "0000-01-01", "10000-01-01"),
        *("\u0662\u0660\u0662\u0664-03-05", "2024-03-05T06:0\uff17:08Z", "2024-03-05\n06:07", "2024\u201103\u201105"),
    ],
)
def test_every_other_form_of_a_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected a time|month|day|hour|minute|second|year|offset"):
        stored_time(text)

"""A file of labels is checked whole before the first label is sent."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from fraud_detection.contract import MAX_LABEL_ROWS, MAX_LABELS, MAX_ROWS_PER_LABEL
from fraud_detection.features import default_features
from fraud_detection.settings import ClientSettings
from fraud_detection.store import Store, decisions
from fraud_detection.store.labels import label_that_counts
from jobs.exchange.api_client import ApiClient, ApiRefused
from jobs.exchange.label_file import label_file
from jobs.exchange.table import BadTransactionFile


def written(folder: Path, *lines: str) -> Path:
    path = folder / "labels.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_sends_what_each_line_says(running_api: dict[str, str], tmp_path: Path) -> None:
    client = ApiClient(ClientSettings.from_env(running_api))
    row = [0.0] * 29
    scored = client.score([row, row, row], ["a", "b", None], idempotency_key="k")
    reported_at = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
    path = written(
        tmp_path,
        "request_id,row,transaction_id,is_fraud,source,reported_at,reporter,note",
        f",,a,1,chargeback,{reported_at},bank,x",
        ",,b,,,,,not looked at yet",
        f"{scored.request_id},2,,false,,,,",
    )

    with client:
        done = label_file(path, client, source="analyst")
        unknown = written(tmp_path, "transaction_id,Class", "a,1", "b,", "nobody,0")
        with pytest.raises(ApiRefused, match=r"labels\.csv, line 4: the API answered 404: label 1: no such") as refused:
            label_file(unknown, client, source="analyst")
        with pytest.raises(ApiRefused, match=r"line 2: the API answered 422: label 0, source: expected one of"):
            label_file(written(tmp_path, "transaction_id,Class", "a,1"), client, source="rumour")

    assert (done.labels, done.new, done.empty) == (2, 2, 1)
    assert refused.value.status == 404
    assert _labels(Path(running_api["LATEST_DB"]), "a") == [("chargeback", "bank", True, f"{reported_at}.000000")]
    assert _labels(Path(running_api["LATEST_DB"]), f"{scored.request_id}:2")[0][:3] == ("analyst", "api", False)


def test_a_label_that_is_older_than_its_transaction_is_named_by_its_line(
    running_api: dict[str, str], tmp_path: Path
) -> None:
    client = ApiClient(ClientSettings.from_env(running_api))
    today = f"{datetime.now(UTC):%Y-%m-%d}"

    with client:
        client.score([[0.0] * 29] * 2, ["early", "dated"], idempotency_key="k")
        path = written(tmp_path, "transaction_id,is_fraud,reported_at", "dated,0,", "early,1,2020-02-29 12:00:00")
        with pytest.raises(ApiRefused, match=r"line 3: the API answered 422: .* 2020-02-29 12:00:00 UTC is before its"):
            label_file(path, client, source="analyst")
        done = label_file(
            written(tmp_path, "transaction_id,is_fraud,reported_at", f"dated,1,{today}"), client, source="chargeback"
        )

    assert done.new == 1
    assert _labels(Path(running_api["LATEST_DB"]), "dated") == [
        ("chargeback", "api", True, f"{today} 00:00:00.000000"),
    ]


def test_lines_that_contradict_each_other_count_as_labels_do(running_api: dict[str, str], tmp_path: Path) -> None:
    client = ApiClient(ClientSettings.from_env(running_api))
    when = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
    twice = {"fraud-first": ("1", "0", ""), "fraud-last": ("0", "1", ""), "dated": ("1", "0", when)}
    others = [f"t{number}" for number in range(MAX_LABELS - 5)]  # so that a request ends within "fraud-last"
    path = written(
        tmp_path,
        "transaction_id,is_fraud,Class,source,reported_at",
        *(f"{name},,0,review," for name in others),
        *(f"{name},{first},,analyst,{at}" for name, (first, _, at) in twice.items()),
        *(f"{name},0,0,customer," for name in twice),
        *(f"{name},{last},,analyst,{at}" for name, (_, last, at) in twice.items()),
    )

    with client:
        client.score([[0.0] * 29] * (MAX_LABELS - 2), [*twice, *others], idempotency_key="k")
        done, again = (label_file(path, client, source="analyst") for _ in range(2))

    sent = MAX_LABELS + 1
    assert (done.labels, done.new, done.overruled) == (sent, sent, 3)
    assert (again.labels, again.new, again.overruled) == (sent, 0, 3)
    for name in twice:
        said = _labels(Path(running_api["LATEST_DB"]), name)
        assert sorted(label[:3] for label in said) == [("analyst", "api", True), ("customer", "api", False)]
    said = _labels(Path(running_api["LATEST_DB"]), "fraud-last")
    assert len({label[3] for label in said}) == 1  # in one request, so that the stronger source counts


@pytest.mark.parametrize(
    ("by_id", "by_row", "counts"),
    [("1,analyst", "0,analyst", True), ("0,analyst", "1,review", False), ("0,customer", "1,customer", True)],
    ids=["fraud first", "stronger first", "fraud last"],
)
def test_two_names_of_a_transaction_count_alike_in_one_request_and_in_two(
    running_api: dict[str, str], tmp_path: Path, by_id: str, by_row: str, counts: bool
) -> None:
    others = [f"t{number}" for number in range(MAX_LABELS - 2)]
    between = [*(f",,{other},0,review" for other in others), f",,{others[0]},0,customer"]
    header = "request_id,row,transaction_id,is_fraud,source"

    with ApiClient(ClientSettings.from_env(running_api)) as client:
        scored = client.score([[0.0] * 29] * MAX_LABELS, ["short", "long", *others], idempotency_key="k")
        for row, (name, lines) in enumerate({"short": [], "long": between}.items()):
            path = written(tmp_path, header, f",,{name},{by_id}", *lines, f"{scored.request_id},{row},,{by_row}")
            assert label_file(path, client, source="analyst").new == len(lines) + 2
            store = Store.open(Path(running_api["LATEST_DB"]), default_features(), read_only=True)
            with store.begin() as connection:
                (decision,) = decisions.find(store, connection, name)
            store.close()
            assert label_that_counts(decision.labels).is_fraud is counts


def test_labels_too_wide_for_one_request_go_in_two(running_api: dict[str, str], tmp_path: Path) -> None:
    client = ApiClient(ClientSettings.from_env(running_api))
    ids = [f"{number:03}".rjust(128, "\\") for number in range(MAX_LABELS)]  # JSON doubles each backslash
    reporter = "\N{GRINNING FACE}" * 64  # and escapes an emoji in 12 bytes
    path = written(tmp_path, "transaction_id,is_fraud,reporter", *(f"{each},1,{reporter}" for each in ids))

    with client:
        client.score([[0.0] * 29] * MAX_LABELS, ids, idempotency_key="k")
        done = label_file(path, client, source="analyst")

    assert (done.labels, done.new) == (MAX_LABELS, MAX_LABELS)


def test_labels_that_name_many_rows_go_in_smaller_requests(running_api: dict[str, str], tmp_path: Path) -> None:
    client = ApiClient(ClientSettings.from_env(running_api))
    many = MAX_ROWS_PER_LABEL
    reporters = [f"desk {number}" for number in range(MAX_LABEL_ROWS // many + 1)]
    path = written(tmp_path, "transaction_id,is_fraud,reporter", *(f"t,1,{reporter}" for reporter in reporters))

    with client:
        client.score([[0.0] * 29] * many, ["t"] * many, idempotency_key="k")
        done = label_file(path, client, source="analyst")
        client.score([[0.0] * 29] * 2, ["t", "one"], idempotency_key="l")
        with pytest.raises(
            ApiRefused, match=r"labels\.csv, line 3: .*: label 1: its transaction_id names more"
        ) as refused:
            label_file(written(tmp_path, "transaction_id,is_fraud", "one,1", "t,0"), client, source="analyst")

    assert (done.labels, done.new) == (len(reporters), len(reporters))
    assert (refused.value.status, refused.value.code) == (422, "too_many_rows")
    assert _labels(Path(running_api["LATEST_DB"]), "one") == []


def _labels(database: Path, identifier: str) -> list[tuple[str, str, bool, str]]:
    store = Store.open(database, default_features(), read_only=True)
    with store.begin() as connection:
        (decision,) = decisions.find(store, connection, identifier)
    store.close()
    return [(label.source, label.reporter, label.is_fraud, label.reported_at) for label in decision.labels]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["transaction_id"], "line 1: expected the columns transaction_id"),
        (
            ["transaction_id;is_fraud", "a;1"],
            "line 1: expected the columns .*, got semicolons between the names; save the",
        ),
        (
            ["transaction_id\tis_fraud", "a\t1"],
            "line 1: expected the columns .*, got tabs between the names; save the file",
        ),
        (["request_id,is_fraud"], "line 1: expected the columns transaction_id"),
        (["transaction_id,is_fraud,is_fraud", "a,1,0"], "line 1: column is_fraud appears twice"),
        (["transaction_id,is_fraud,reported_at", "a,1,20230808120000Z"], "line 2: column reported_at: expected a time"),
        (["transaction_id,is_fraud,Class", "a,1,1", "b,1,0"], "line 3: the columns is_fraud and Class contradict each"),
        (["transaction_id,is_fraud", "a"], "line 2: expected 2 columns, got 1"),
        (["transaction_id,is_fraud", "a,1", "b,maybe"], "line 3: column is_fraud: expected 0, 1 or nothing"),
        (["transaction_id,is_fraud", ",1"], "line 2: expected a transaction_id, or request_id and row"),
        (["request_id,row,is_fraud", "r,first,1"], "line 2: column row: expected the position"),
        (["transaction_id,is_fraud,reported_at", "a,1,2023-220"], "line 2: column reported_at: expected a time such"),
        (["transaction_id,is_fraud,reported_at", "a,1,1691496000"], "line 2: column reported_at: expected a time such"),
        (["transaction_id,is_fraud,reported_at", "a,1,soon"], "line 2: column reported_at: expected a time"),
    ],
)
def test_a_bad_line_is_named_before_anything_is_sent(tmp_path: Path, lines: list[str], message: str) -> None:
    unreachable = ApiClient(ClientSettings(api_url="http://127.0.0.1:1", api_token="t"))

    with unreachable, pytest.raises(BadTransactionFile, match=message):
        label_file(written(tmp_path, *lines), unreachable, source="analyst")


def test_more_labels_than_memory_should_hold_are_refused_before_one_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.exchange.label_file._MAX_LABELS_OF_A_FILE", 2)
    away = ApiClient(ClientSettings.from_env({"API_TOKEN": "a-token-of-no-api", "API_URL": "http://127.0.0.1:9"}))
    path = written(tmp_path, "transaction_id,is_fraud", "a,1", "b,", "c,0", "d,1")

    with pytest.raises(BadTransactionFile, match="line 5: expected at most 2 labels in a file; split it"):
        label_file(path, away, source="analyst")

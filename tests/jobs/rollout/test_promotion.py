"""A promotion counts only if the API serves it, and an interrupted one is finished."""

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import sqlalchemy as sa

from fraud_detection.environment import BadSetting
from fraud_detection.lock import promoter
from fraud_detection.model import read
from fraud_detection.model.files import CURRENT, JOURNAL, ONNX, PICKLE
from fraud_detection.model.read import ModelRefused, ModelUndecided, current_version, load, read_manifest
from fraud_detection.model.write import promote, record
from fraud_detection.settings import ClientSettings
from jobs.rollout import promotion as rollout
from jobs.rollout import running_api
from jobs.rollout.deployment import KubernetesRefused
from jobs.rollout.promotion import NotRecorded, Restored, finish_promotion, put_into_service, tracking_of
from jobs.rollout.running_api import NOT_ASKED, NotServed, RunningApi
from jobs.rollout.tracking import Tracking, TrackingFailed
from tests.support.installation import FEATURES, SmallInstallation
from tests.support.kubernetes_api import Cluster, Pods
from tests.support.mlflow_store import mlflow_client


@pytest.fixture
def served(installation: SmallInstallation, make_version: Callable[..., str]) -> str:
    """A version that was promoted and verified."""
    version = make_version(installation.models_dir, of=FEATURES, seed=1)
    register(installation, version)
    put(installation, version)
    return version


@pytest.fixture
def next_version(installation: SmallInstallation, served: str, make_version: Callable[..., str]) -> str:
    """A newer version, registered, not promoted."""
    version = make_version(installation.models_dir, of=FEATURES, seed=2)
    register(installation, version)
    return version


def digest_of(installation: SmallInstallation, version: str) -> str:
    return read_manifest(installation.models_dir / version).digest


def register(installation: SmallInstallation, version: str) -> None:
    tracking = tracking_of(installation.here)
    digest = digest_of(installation, version)
    run_id = tracking.log_run(
        version,
        params={},
        metrics={},
        tags={"digest": digest},
        files={"model/model.onnx": b""},
        description="not yet",
    )
    tracking.register(run_id, digest=digest, version=version)


def put(installation: SmallInstallation, version: str, *, client: ClientSettings | None = None) -> str:
    """Put a version into service, and return what was seen of the API."""
    here = installation.here
    api = None if client is None else RunningApi(client)
    return put_into_service(version, here, tracking_of(here), actor="test", reason="a test", api=api)


def description_of(installation: SmallInstallation, version: str) -> str:
    client = mlflow_client(installation.settings.latest_db.parent)
    (run,) = client.search_runs(["1"], f"attributes.run_name = '{version}'")
    return str(run.data.tags["mlflow.note.content"])


def champion(installation: SmallInstallation) -> str | None:
    return tracking_of(installation.here).champion()


def damage(installation: SmallInstallation, version: str) -> None:
    path = installation.models_dir / version / ONNX
    path.write_bytes(path.read_bytes()[:-1])


def test_a_promoted_version_is_verified_and_the_champion(
    installation: SmallInstallation, served: str, next_version: str
) -> None:
    put(installation, next_version)

    assert current_version(installation.models_dir) == next_version
    assert champion(installation) == digest_of(installation, next_version)
    last = read.journal(installation.models_dir)[-1]
    assert (last["event"], last["version"], last["actor"]) == ("verified", next_version, "test")


def test_a_damaged_version_is_refused_before_anything_changes(
    installation: SmallInstallation, served: str, next_version: str
) -> None:
    damage(installation, next_version)

    with pytest.raises(ModelRefused, match=r"model\.onnx is not the file"):
        put(installation, next_version)

    assert current_version(installation.models_dir) == served
    assert installation.events() == ["promoted", "verified"]


def test_a_model_that_mlflow_never_saw_leaves_no_champion(
    installation: SmallInstallation, served: str, make_version: Callable[..., str]
) -> None:
    put(installation, make_version(installation.models_dir, of=FEATURES, seed=3))

    assert champion(installation) is None


def test_a_failing_machine_is_no_reason_to_go_back(
    installation: SmallInstallation, served: str, next_version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read, "_tried", set())  # another process
    installation.here.served_model()  # so that going back to the previous version needs no trial
    promote(installation.models_dir, next_version, actor="killed", reason="a test")
    with monkeypatch.context() as no_process_left:
        no_process_left.setattr("sys.executable", str(installation.folder / "no-python"))
        with pytest.raises(ModelUndecided, match="a new process could not be started"):
            finish_promotion(installation.here, actor="test")
    left = (current_version(installation.models_dir), installation.events()[-1])

    finish_promotion(installation.here, actor="test")

    assert left == (next_version, "promoted")
    assert (current_version(installation.models_dir), installation.events()[-1]) == (next_version, "verified")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for the API only 0.2 seconds, enough to ask it twice."""
    monkeypatch.setattr(running_api, "SERVED_WITHIN_SECONDS", 0.2)


# -- asking the API --------------------------------------------------------------------------------------------------


def test_an_api_that_serves_the_version_confirms_it(
    installation: SmallInstallation, next_version: str, api_that_stays: Callable[[str], ClientSettings]
) -> None:
    client = api_that_stays(digest_of(installation, next_version))

    seen = put(installation, next_version, client=client)

    assert seen == f"The API at {client.api_url} serves this model."
    assert installation.events()[-1] == "verified"


def test_an_api_may_load_the_version_after_two_answers(installation: SmallInstallation, next_version: str) -> None:
    digest = digest_of(installation, next_version)
    answers = iter(["the old one", "the old one"])

    class Slow(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(f'{{"digest": "{next(answers, digest)}"}}'.encode())

        def log_request(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    put(
        installation,
        next_version,
        client=ClientSettings(api_url=f"http://127.0.0.1:{server.server_port}", api_token="t"),
    )

    server.shutdown()
    server.server_close()
    assert current_version(installation.models_dir) == next_version


def test_if_no_api_runs_the_next_one_to_start_verifies_it(installation: SmallInstallation, next_version: str) -> None:
    seen = put(installation, next_version, client=ClientSettings(api_url="http://127.0.0.1:9", api_token="t"))

    assert seen == "No API listens at http://127.0.0.1:9: the next one to start verifies this model."
    assert installation.events()[-1] == "verified"


def test_an_api_that_is_neither_restarted_nor_asked_is_a_wrong_setting(installation: SmallInstallation) -> None:
    installation.variables |= {"ROLLOUT_MODE": "restart", "API_URL": "http://127.0.0.1:9", "API_TOKEN": "t"}

    with pytest.raises(BadSetting, match=r"ROLLOUT_DEPLOYMENT is not set; .* leave API_URL empty"):
        running_api.running_api(installation.settings, installation.variables)

    del installation.variables["API_URL"]
    assert running_api.running_api(installation.settings, installation.variables) is None


def test_without_a_rollout_the_api_is_not_asked(
    installation: SmallInstallation, next_version: str, api_that_stays: Callable[[str], ClientSettings]
) -> None:
    installation.variables["ROLLOUT_MODE"] = "none"

    seen = put(installation, next_version, client=api_that_stays("another"))

    assert (seen, current_version(installation.models_dir)) == (NOT_ASKED, next_version)


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [("0123456789abcdef", "still serves 0123456789ab"), ("503", "answers 503"), ("401", "answers 401")],
)
def test_an_api_that_does_not_serve_it_restores_the_previous_version(
    installation: SmallInstallation,
    served: str,
    next_version: str,
    api_that_stays: Callable[[str], ClientSettings],
    impatient: None,
    *,
    answer: str,
    complaint: str,
) -> None:
    with pytest.raises(Restored, match=complaint):
        put(installation, next_version, client=api_that_stays(answer))

    assert current_version(installation.models_dir) == served
    assert champion(installation) == digest_of(installation, served)
    restored = [entry for entry in read.journal(installation.models_dir) if entry["event"] == "restored"]
    assert [(entry["version"], entry["previous"]) for entry in restored] == [(served, next_version)]


@pytest.mark.parametrize("url", ["http://no-such-host.invalid", "http://127.0.0.1:{port}/not/ours"])
def test_an_address_without_an_api_is_not_taken_for_success(
    installation: SmallInstallation,
    next_version: str,
    api_that_stays: Callable[[str], ClientSettings],
    impatient: None,
    url: str,
) -> None:
    port = api_that_stays("404").api_url.rpartition(":")[2]

    with pytest.raises(Restored, match=r"cannot be reached|answers 404"):
        put(installation, next_version, client=ClientSettings(api_url=url.format(port=port), api_token="the-token"))


def test_an_answer_that_is_no_model_is_not_taken_for_success(
    installation: SmallInstallation, next_version: str, impatient: None
) -> None:
    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>")

        def log_request(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Other)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    with pytest.raises(Restored, match="gives no usable answer"):
        put(
            installation,
            next_version,
            client=ClientSettings(api_url=f"http://127.0.0.1:{server.server_port}", api_token="t"),
        )

    server.shutdown()
    server.server_close()


def test_a_first_version_that_does_not_serve_has_nothing_to_go_back_to(
    installation: SmallInstallation,
    make_version: Callable[..., str],
    api_that_stays: Callable[[str], ClientSettings],
    impatient: None,
) -> None:
    version = make_version(installation.models_dir, of=FEATURES)

    with pytest.raises(ModelRefused, match="there is no previous version to restore"):
        put(installation, version, client=api_that_stays("another"))


# -- promotions that did not come to their end -----------------------------------------------------------------------


def finish(installation: SmallInstallation) -> None:
    finish_promotion(installation.here, actor="test")


def test_without_a_model_and_after_a_verified_one_there_is_nothing_to_finish(
    installation: SmallInstallation, make_version: Callable[..., str]
) -> None:
    finish(installation)
    version = make_version(installation.models_dir, of=FEATURES)
    put(installation, version)
    record(installation.models_dir, "judged", digest="a rejected one")

    finish(installation)

    assert installation.events() == ["promoted", "verified", "judged"]


def test_killed_before_the_verification_the_next_job_verifies(
    installation: SmallInstallation, served: str, next_version: str
) -> None:
    promote(installation.models_dir, next_version, actor="killed", reason="a test")

    finish(installation)

    assert installation.events() == ["promoted", "verified", "promoted", "verified"]
    assert champion(installation) == digest_of(installation, next_version)


def test_killed_between_the_link_and_the_journal_the_next_job_verifies(
    installation: SmallInstallation, served: str, next_version: str
) -> None:
    link = installation.models_dir / "new"
    link.symlink_to(next_version)
    link.rename(installation.models_dir / CURRENT)

    finish(installation)

    assert installation.events() == ["promoted", "verified", "verified"]
    assert read.journal(installation.models_dir)[-1]["version"] == next_version


def test_killed_between_the_two_links_of_the_first_promotion_the_next_job_makes_the_second(
    installation: SmallInstallation, make_version: Callable[..., str]
) -> None:
    version = make_version(installation.models_dir, of=FEATURES)
    (installation.models_dir / CURRENT).symlink_to(version)

    finish(installation)

    assert load(installation.settings.model_path, FEATURES).version == version
    assert installation.events() == ["promoted", "verified"]


@pytest.mark.parametrize("is_journalled", [True, False])
def test_a_version_that_was_damaged_before_it_was_verified_is_rolled_back(
    installation: SmallInstallation, served: str, next_version: str, is_journalled: bool
) -> None:
    promote(installation.models_dir, next_version, actor="killed", reason="a test")
    if not is_journalled:
        journal = installation.models_dir / JOURNAL
        journal.write_text("".join(journal.read_text().splitlines(keepends=True)[:-1]))
    damage(installation, next_version)

    with pytest.raises(Restored, match=f"{next_version} did not serve .*; {served} was restored and serves"):
        finish(installation)

    assert current_version(installation.models_dir) == served
    assert champion(installation) == digest_of(installation, served)
    told = description_of(installation, next_version)
    assert told.startswith(f"{next_version} did not serve (")
    assert told.endswith(f"{served} was restored and serves. Find the cause before the next retraining.")


def test_a_first_version_that_does_not_serve_is_described_so(
    installation: SmallInstallation,
    make_version: Callable[..., str],
    api_that_stays: Callable[[str], ClientSettings],
    impatient: None,
) -> None:
    version = make_version(installation.models_dir, of=FEATURES, seed=1)
    register(installation, version)

    with pytest.raises(ModelRefused, match="there is no previous version to restore") as refused:
        put(installation, version, client=api_that_stays("another"))

    assert description_of(installation, version) == str(refused.value)


def _mlflow_is_away(*_: object) -> None:
    raise TrackingFailed("MLflow: away")


def test_a_version_that_mlflow_did_not_record_serves_and_the_next_run_records_it(
    installation: SmallInstallation, served: str, next_version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as during:
        during.setattr(Tracking, "move_champion", _mlflow_is_away)
        with pytest.raises(NotRecorded, match=f"{next_version} serves, but MLflow did not"):
            put(installation, next_version)

    assert current_version(installation.models_dir) == next_version
    finish(installation)
    assert champion(installation) == digest_of(installation, next_version)
    assert installation.events()[-1] == "verified"


def test_a_restored_version_that_mlflow_did_not_record_is_recorded_by_the_next_run(
    installation: SmallInstallation, served: str, next_version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(installation, next_version)
    promote(installation.models_dir, served, actor="killed", reason="a test")
    promote(installation.models_dir, next_version, actor="killed", reason="a test")
    damage(installation, next_version)
    with monkeypatch.context() as during:
        during.setattr(Tracking, "move_champion", _mlflow_is_away)
        with pytest.raises(Restored, match=f"{served} was restored and serves"):
            finish(installation)

    assert installation.events()[-1] == "restored"
    finish(installation)
    assert champion(installation) == digest_of(installation, served)
    assert installation.events()[-1] == "verified"


def test_a_description_that_mlflow_rejects_hides_no_failure(
    installation: SmallInstallation, served: str, next_version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(installation.models_dir, next_version, actor="killed", reason="a test")
    damage(installation, next_version)
    monkeypatch.setattr(Tracking, "describe", _mlflow_is_away)

    with pytest.raises(Restored, match=f"{served} was restored and serves"):
        finish(installation)


def test_without_a_journal_the_manifest_names_the_previous_version(
    installation: SmallInstallation, served: str, make_version: Callable[..., str]
) -> None:
    version = make_version(installation.models_dir, of=FEATURES, seed=2, parent=served)
    promote(installation.models_dir, version, actor="killed", reason="a test")
    (installation.models_dir / JOURNAL).unlink()
    damage(installation, version)

    with pytest.raises(Restored):
        finish(installation)

    assert current_version(installation.models_dir) == served


def test_a_link_that_leads_elsewhere_than_promoted_is_seen(
    installation: SmallInstallation, served: str, next_version: str, tmp_path: Path
) -> None:
    """MODEL_PATH may name the link of another folder, which no promotion of the job moves."""
    elsewhere = tmp_path / "elsewhere" / PICKLE
    elsewhere.parent.mkdir()
    elsewhere.symlink_to(installation.models_dir / served / PICKLE)
    installation.variables["MODEL_PATH"] = str(elsewhere)

    with pytest.raises(NotServed, match=f"{elsewhere} points at {served}"):
        rollout._bring_into_service(next_version, installation.here, None)


# -- in Kubernetes ---------------------------------------------------------------------------------------------------


def api_of(installation: SmallInstallation) -> RunningApi:
    api = running_api.running_api(installation.settings, installation.variables)
    assert api is not None
    return api


def put_in_cluster(installation: SmallInstallation, version: str) -> None:
    here = installation.here
    put_into_service(version, here, tracking_of(here), actor="test", reason="a test", api=api_of(installation))


def finish_in_cluster(installation: SmallInstallation) -> None:
    finish_promotion(installation.here, actor="test", find_api=lambda: api_of(installation))


@pytest.fixture
def rolled_out(installation: SmallInstallation, served: str, pods: Pods, next_version: str) -> tuple[str, str]:
    """The version that the pods serve, and one that comes next."""
    pods.restart()
    return served, next_version


def test_pods_are_restarted_before_a_promotion_counts(
    installation: SmallInstallation, rolled_out: tuple[str, str], cluster: Cluster, pods: Pods
) -> None:
    put_in_cluster(installation, rolled_out[1])

    assert cluster.restarts == [pods.serving] == [digest_of(installation, rolled_out[1])]
    assert installation.events() == ["promoted", "verified", "promoted", "verified"]


def test_pods_that_refuse_a_model_restore_the_previous_version(
    installation: SmallInstallation, rolled_out: tuple[str, str], cluster: Cluster, pods: Pods
) -> None:
    old, new = rolled_out
    cluster.crashing = {digest_of(installation, new)}

    with pytest.raises(Restored, match=f"{new} did not serve .*timed out progressing.*; {old} was restored and serves"):
        put_in_cluster(installation, new)

    assert cluster.restarts == [digest_of(installation, new), digest_of(installation, old)]
    assert current_version(installation.models_dir) == old
    assert (pods.serving, champion(installation)) == (digest_of(installation, old),) * 2
    assert installation.events() == ["promoted", "verified", "promoted", "restored", "verified"]


def test_what_kubernetes_refuses_beforehand_changes_nothing(
    installation: SmallInstallation, rolled_out: tuple[str, str], cluster: Cluster
) -> None:
    cluster.refused = {"PATCH": (403, "forbidden")}

    with pytest.raises(KubernetesRefused, match="does not allow patch"):
        put_in_cluster(installation, rolled_out[1])

    assert current_version(installation.models_dir) == rolled_out[0]
    assert installation.events() == ["promoted", "verified"]


@pytest.mark.parametrize("is_restarted", [False, True], ids=["before the restart", "after it"])
def test_killed_on_either_side_of_the_restart_the_next_job_finishes_with_one(
    installation: SmallInstallation, rolled_out: tuple[str, str], cluster: Cluster, pods: Pods, is_restarted: bool
) -> None:
    new = digest_of(installation, rolled_out[1])
    promote(installation.models_dir, rolled_out[1], actor="killed", reason="a test")
    if is_restarted:
        put_patch(installation, new)

    finish_in_cluster(installation)

    assert cluster.restarts == [pods.serving] == [new]
    assert installation.events() == ["promoted", "verified", "promoted", "verified"]


def put_patch(installation: SmallInstallation, digest: str) -> None:
    deployment = api_of(installation).deployment
    assert deployment is not None
    deployment.restart(digest, deadline=float("inf"))


def test_killed_while_pods_refuse_the_model_the_next_job_restores_the_previous_version(
    installation: SmallInstallation, rolled_out: tuple[str, str], cluster: Cluster, pods: Pods
) -> None:
    old, new = rolled_out
    cluster.crashing = {digest_of(installation, new)}
    promote(installation.models_dir, new, actor="killed", reason="a test")
    put_patch(installation, digest_of(installation, new))

    with pytest.raises(Restored, match=f"{old} was restored and serves"):
        finish_in_cluster(installation)

    assert cluster.restarts == [digest_of(installation, new), digest_of(installation, old)]
    assert pods.serving == digest_of(installation, old)


@pytest.mark.parametrize("is_restarted", [False, True], ids=["before the restart", "after it"])
def test_killed_during_a_rollback_the_next_job_finishes_it(
    installation: SmallInstallation, rolled_out: tuple[str, str], cluster: Cluster, pods: Pods, is_restarted: bool
) -> None:
    old, new = rolled_out
    promote(installation.models_dir, new, actor="killed", reason="a test")
    put_patch(installation, digest_of(installation, new))
    promote(installation.models_dir, old, actor="killed", reason="a test", event="restored")
    if is_restarted:
        put_patch(installation, digest_of(installation, old))

    finish_in_cluster(installation)

    assert cluster.restarts == [digest_of(installation, new), digest_of(installation, old)]
    assert pods.serving == digest_of(installation, old)
    assert installation.events()[-1] == "verified"


def test_an_api_that_loads_neither_version_leaves_the_previous_one_until_it_works(
    installation: SmallInstallation, rolled_out: tuple[str, str], cluster: Cluster, pods: Pods
) -> None:
    old, new = rolled_out
    cluster.crashing = {digest_of(installation, version) for version in rolled_out}
    with pytest.raises(Restored, match=f"{old} was restored, but does not serve either"):
        put_in_cluster(installation, new)

    with pytest.raises(ModelRefused, match="there is no previous version to restore"):
        finish_in_cluster(installation)
    still = current_version(installation.models_dir)
    cluster.crashing = set()
    put_patch(installation, "of the person who repaired it")
    finish_in_cluster(installation)

    assert still == current_version(installation.models_dir) == old
    assert pods.serving == digest_of(installation, old)
    assert installation.events()[-1] == "verified"


# -- one at a time ---------------------------------------------------------------------------------------------------


def test_a_promoter_that_fails_releases_the_lock(location: str | Path, tmp_path: Path) -> None:
    """Also while its pool of connections lives on, as in a program that catches the error."""
    engines = [sa.create_engine(location) if isinstance(location, str) else None for _ in range(2)]

    with pytest.raises(ZeroDivisionError), promoter(tmp_path, engines[0]):
        raise ZeroDivisionError

    with promoter(tmp_path, engines[1]):
        pass
    for engine in filter(None, engines):
        engine.dispose()

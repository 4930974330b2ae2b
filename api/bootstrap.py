"""`python -m api.bootstrap`: create what an installation needs to serve (tables, a model, links) if it is missing."""

import contextlib
import errno
import json
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from fraud_detection import logs
from fraud_detection.contract import AMOUNT_SCALING
from fraud_detection.exit_codes import ExitCode, ExpectedError
from fraud_detection.features import FeatureList, load_features
from fraud_detection.file_modes import share_with_group
from fraud_detection.lock import promoter
from fraud_detection.model.files import CURRENT, MANIFEST, PICKLE, REFERENCE, link_whole
from fraud_detection.model.manifest import AmountScaling
from fraud_detection.model.read import ModelRefused, current_version, read_version
from fraud_detection.model.write import install_version, link_classic_path, promote
from fraud_detection.regular_file import no_folder
from fraud_detection.remembered import features_file, remember_features
from fraud_detection.settings import SharedSettings
from fraud_detection.store import Store
from fraud_detection.vanished import Mark

logger = logging.getLogger(__name__)


class CannotWrite(ExpectedError):
    """A folder of the installation that cannot be written; the message says what to do."""

    def __init__(self, folder: Path, error: OSError) -> None:
        is_full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        self.exit_code = ExitCode.FAILED if is_full else ExitCode.UNUSABLE
        if is_full:
            advice = "free space there, or mount a larger volume"
        elif error.errno == errno.EROFS:
            advice = "mount a writable volume there"
        else:
            advice = "chown it to that user, set fsGroup in Kubernetes, or mount a volume that this user may write"
        super().__init__(
            f"{error.filename or folder}: {error.strerror or error}, for uid {os.geteuid()} and gid {os.getegid()}; "
            f"the installation keeps files in {folder}: {advice}"
        )


def main() -> int:
    """Run from the command line and return the exit code.

    0; 1 another job holds the lock or a volume is full, so that a later attempt may succeed; 2 bad configuration;
    3 store or model refused, or a folder that cannot be written.
    """
    share_with_group()
    try:
        settings = SharedSettings.from_env(os.environ)
        logs.configure(settings.log_level, settings.log_format)
        bootstrap(settings)
    except ExpectedError as error:
        logger.error("%s", error)  # noqa: TRY400  the message is for a person, a traceback is not
        return error.exit_code
    return ExitCode.DONE


def bootstrap(settings: SharedSettings) -> None:
    """Create what is missing and leave the rest unchanged.

    Raises BadFeatureList, DatabaseRefused, ModelRefused, LockHeld, CannotWrite.
    """
    mark = Mark.of(settings)
    if mark is not None:
        mark.refuse()
    features = load_features(features_file(settings))
    data = settings.latest_db.parent
    with _writing(data):
        store = Store.create_or_migrate(
            settings.store_location, features, allow_network_filesystem=settings.allow_network_filesystem
        )
    try:
        with _writing(data):
            remember_features(settings)
        logger.info("store: ready for the %d features of this installation", len(features))
        # A job that rolls out its model holds the lock while it waits for a pod that starts here.
        with _writing(settings.models_dir):
            version = current_version(settings.models_dir)
            if version is None or not (settings.models_dir / PICKLE).exists():
                with promoter(settings.models_dir, store.engine):
                    version = _complete(settings, store, features)
        logger.info("model: %s is the current version", version)
    finally:
        store.close()
    if settings.database_url is None:
        with _writing(data):
            _link_reference(data / REFERENCE, settings.models_dir / CURRENT / REFERENCE)
    logger.info("ready: the API can start")


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CannotWrite(folder, error) from error


def _complete(settings: SharedSettings, store: Store, features: FeatureList) -> str:
    """Create what is still missing while holding the lock, and return the current version."""
    version = current_version(settings.models_dir)
    if version is None:
        return _install_baseline(settings, store, features)
    link_classic_path(settings.models_dir)  # if the first promotion was killed between its two links
    return version


def _install_baseline(settings: SharedSettings, store: Store, features: FeatureList) -> str:
    baseline = settings.baseline_dir
    classic = settings.models_dir / PICKLE
    if classic.exists() and not classic.is_symlink():
        raise ModelRefused(
            "missing",
            f"{classic}: is a model without {MANIFEST}, so it is neither served nor replaced; "
            f"`fraudctl models adopt {classic}` verifies and installs it; or move it away",
        )
    problem = no_folder(baseline)
    if problem is not None:
        raise ModelRefused("missing", f"BASELINE_DIR: {problem}")
    if not (baseline / MANIFEST).exists():
        raise ModelRefused(
            "missing",
            f"BASELINE_DIR: no model version in {baseline}; `python -m jobs.seed --out {baseline}` "
            "makes one from synthetic transactions, `fraudctl models adopt FILE.pkl` installs a model of yours",
        )
    read_version(baseline, features)  # never install what could not serve
    with store.begin() as connection:
        fixed = store.get_meta(connection, AMOUNT_SCALING)
    scaling = None if fixed is None else AmountScaling(**json.loads(fixed))
    version = install_version(settings.models_dir, baseline, amount_scaling=scaling)
    promote(settings.models_dir, version, actor="bootstrap", reason="the first model of this installation")
    return version


def _link_reference(link: Path, leads_to: Path) -> None:
    """Link the classic path of the reference data through `current`, so that it changes with the model."""
    target = os.path.relpath(leads_to, link.parent)
    if link.is_symlink() or not link.exists():
        link_whole(link, target)
    else:
        logger.warning("%s: is not a link of this installation and stays; drift reads %s", link, leads_to)


if __name__ == "__main__":
    sys.exit(main())

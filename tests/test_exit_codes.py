"""Scripts and schedulers rely on exit codes: each expected error keeps its own."""

import importlib
import pkgutil

import api
import fraud_detection
import fraudctl
import jobs
from fraud_detection.exit_codes import ExpectedError

OTHER_THAN_1 = {
    "BadBackup": 3,
    "BadFeatureList": 2,
    "BadOldDatabase": 3,
    "BadSetting": 2,
    "BadStatistics": 3,
    "BadTokenFile": 2,
    "BadTransactionFile": 3,
    "CannotAdopt": 3,
    "CannotDecrypt": 3,
    "DatabaseRefused": 3,
    "KubernetesRefused": 2,
    "ModelRefused": 3,
    "NotAFile": 3,
    "NotEmpty": 2,
    "NotConfirmed": 2,
    "NothingYet": 3,
    "Restored": 4,
    "StoreVanished": 3,
    "WouldReplace": 2,
}
"""Every other expected error exits with 1."""


PROGRAMS = {"fraud_detection.migrations.env", "fraudctl.__main__", "api.gunicorn_conf"}
"""Modules that do work when they are imported."""


def expected_errors() -> dict[str, int]:
    """Import every module and return the exit code of each subclass of ExpectedError."""
    for package in (api, fraud_detection, fraudctl, jobs):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if module.name not in PROGRAMS:
                importlib.import_module(module.name)
    return {error.__name__: error.exit_code for error in ExpectedError.__subclasses__()}


def test_expected_errors_keep_their_exit_codes() -> None:
    found = expected_errors()

    assert {name: code for name, code in found.items() if code != 1} == OTHER_THAN_1
    assert {"LockHeld", "ApiAway", "TrackingFailed", "NoRoom"} <= set(found)

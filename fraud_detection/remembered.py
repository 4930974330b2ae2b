"""Remembers beside an SQLite store which file lists its features, so that FEATURES_FILE need not be set again."""

import os
from pathlib import Path

from fraud_detection.model.files import link_whole
from fraud_detection.settings import SharedSettings


def features_file(settings: SharedSettings) -> Path | None:
    """Return the file of the feature list: FEATURES_FILE, or else what is remembered; None is the default list.

    What is remembered counts with PostgreSQL too, because `fraudctl db copy` fills it from the SQLite store.
    """
    link = remembered_features(settings)
    if settings.features_file is not None or not os.path.lexists(link):
        return settings.features_file
    return Path(os.path.realpath(link))  # a message about it names the file, not the link


def remember_features(settings: SharedSettings) -> None:
    """Link FEATURES_FILE beside the SQLite store; call it when the store has accepted the list.

    It is a link, so that bounds which are corrected in the file count. A file in its place stays.
    """
    link = remembered_features(settings)
    if settings.features_file is None or settings.database_url is not None:
        return
    if link.exists() and not link.is_symlink():
        return
    target = Path(os.path.relpath(settings.features_file.absolute(), os.path.realpath(link.parent)))
    if not link.is_symlink() or link.readlink() != target:
        link_whole(link, target)


def remembered_features(settings: SharedSettings) -> Path:
    """Return where an installation remembers the file of its feature list."""
    return settings.latest_db.with_name("features.json")

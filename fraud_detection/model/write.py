"""Changes the model directory: write, promote and delete versions, only while holding fraud_detection.lock.promoter."""

import dataclasses
import hashlib
import json
import logging
import secrets
import shutil
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from fraud_detection.clock import parse_timestamp
from fraud_detection.model.files import (
    CURRENT,
    JOURNAL,
    MANIFEST,
    PICKLE,
    REFERENCE,
    append_line,
    is_plain_name,
    link_whole,
    shown,
    sync_folder,
    write_synced,
    write_whole,
)
from fraud_detection.model.manifest import AmountScaling, Golden, Manifest, StoredFile
from fraud_detection.model.read import ModelRefused, current_version, read_manifest, verified_bytes, versions

KEPT_VERSIONS = 5
_PARTIAL = ".partial-"
Event = Literal["promoted", "verified", "restored", "judged"]

logger = logging.getLogger(__name__)


def write_version(models_dir: Path, files: Mapping[str, bytes], manifest: Manifest) -> str:
    """Write a version whole or not at all and return its name; nothing serves it yet.

    `files` holds model.onnx and usually rf_model.pkl and reference_data.db; the manifest's `files` is filled in here.
    """
    described = {name: StoredFile(hashlib.sha256(content).hexdigest(), len(content)) for name, content in files.items()}
    complete = dataclasses.replace(manifest, files=described)
    moment = parse_timestamp(complete.created)
    version = f"{moment:%Y%m%dT%H%M%SZ}-{complete.digest[:12]}"
    models_dir.mkdir(parents=True, exist_ok=True)
    partial = models_dir / f"{_PARTIAL}{secrets.token_hex(8)}"
    partial.mkdir()  # not mkdtemp, whose folder is closed to the group
    try:
        for name, content in (*files.items(), (MANIFEST, complete.to_json().encode())):
            write_synced(partial / name, content)
        sync_folder(partial)
        if (models_dir / version).exists():  # the same model was made twice within one second
            return version
        partial.rename(models_dir / version)
        sync_folder(models_dir)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return version


def install_version(models_dir: Path, source: Path, *, amount_scaling: AmountScaling | None = None) -> str:
    """Copy a version directory from elsewhere (the baseline of an image) and return its name.

    With `amount_scaling` the copy's manifest carries the scaling that the installation already uses.

    Raises ModelRefused if the source is not whole.
    """
    manifest = read_manifest(source)
    files = {name: verified_bytes(source, name, manifest) for name in manifest.files}
    fixed = amount_scaling or manifest.amount_scaling
    return write_version(models_dir, files, dataclasses.replace(manifest, amount_scaling=fixed))


def promote(
    models_dir: Path,
    version: str,
    *,
    actor: str,
    reason: str,
    event: Literal["promoted", "restored"] = "promoted",
    verdict: Mapping[str, Any] | None = None,
) -> None:
    """Make a version the current one, in one rename, and record it in the journal.

    Raises ModelRefused if there is no such version.
    """
    if not is_plain_name(version):  # a path: the journal or a manifest may hold one
        raise ModelRefused("missing", f"{version[:100]!r} is not the name of a version")
    manifest = read_manifest(models_dir / version)
    previous = current_version(models_dir)
    link_whole(models_dir / CURRENT, version)
    link_classic_path(models_dir)
    record(
        models_dir,
        event,
        version=version,
        digest=manifest.digest,
        previous=None if previous is None else shown(previous),
        actor=actor,
        reason=reason,
        verdict=verdict,
    )


def link_classic_path(models_dir: Path) -> None:
    """Link rf_model.pkl to the current version, as `promote` does; repeating it is harmless.

    A file of that name, such as a model of another program, is kept beside it as rf_model.pkl.before.
    """
    classic = models_dir / PICKLE
    if classic.exists() and not classic.is_symlink():
        classic.rename(models_dir / f"{PICKLE}.before")
    link_whole(classic, f"{CURRENT}/{PICKLE}")
    sync_folder(models_dir)


def record(models_dir: Path, event: Event, **facts: object) -> None:
    """Append one line to promotions.jsonl."""
    line = json.dumps({"at": datetime.now().astimezone().isoformat(), "event": event, **facts}, allow_nan=False)
    append_line(models_dir / JOURNAL, line.encode())


def collect(models_dir: Path, digests_in_use: set[str]) -> list[str]:
    """Delete what is no longer needed of old versions, and unfinished ones; return the versions that changed.

    The newest five, the current version and its parent stay whole. Of others that stored rows still name, model.onnx
    and the manifest stay, because replay needs them.
    """
    for abandoned in models_dir.glob(f"{_PARTIAL}*"):  # by a promoter that was killed
        _delete(abandoned)
    names = versions(models_dir)
    current = current_version(models_dir)
    kept = {*names[-KEPT_VERSIONS:], current}
    if current is not None:
        kept.add(read_manifest(models_dir / current).parent)
    collected = []
    for name in names:
        if name in kept:
            continue
        try:
            is_in_use = read_manifest(models_dir / name).digest in digests_in_use
        except ModelRefused as error:  # it may be repaired
            logger.warning("a damaged version stays: %s", error)
            continue
        if is_in_use:
            spare = [models_dir / name / PICKLE, models_dir / name / REFERENCE]
            if any(path.exists() for path in spare):
                collected.append(name)
            for path in spare:
                path.unlink(missing_ok=True)
        else:
            discard(models_dir, name)
            collected.append(name)
    return collected


def _delete(path: Path) -> None:
    if path.is_symlink() or not path.is_dir():
        path.unlink()
    else:
        shutil.rmtree(path)


def discard(models_dir: Path, version: str) -> None:
    """Delete a version that no row and no link names, even if it is a link or a file."""
    # A half-deleted version must not keep its name.
    _delete((models_dir / version).rename(models_dir / f"{_PARTIAL}{version}"))


def replace_file(models_dir: Path, version: str, name: str, content: bytes) -> None:
    """Put other bytes under a name of a finished version and correct its manifest.

    Use it only to delete a person's transaction from a reference. If it is
    killed between its two renames, the file does not fit the manifest; running it again repairs that.
    """
    directory = models_dir / version
    manifest = read_manifest(directory)
    described = {**manifest.files, name: StoredFile(hashlib.sha256(content).hexdigest(), len(content))}
    write_whole(directory / name, content)
    write_whole(directory / MANIFEST, dataclasses.replace(manifest, files=described).to_json().encode())


def replace_golden(models_dir: Path, version: str, golden: Golden) -> None:
    """Give a finished version other golden rows, in one rename; use it only to delete values of transactions."""
    directory = models_dir / version
    changed = dataclasses.replace(read_manifest(directory), golden=golden)
    write_whole(directory / MANIFEST, changed.to_json().encode())

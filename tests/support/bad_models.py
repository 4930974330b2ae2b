"""Model versions in bad states, as a careless operator, a broken volume or an attacker leaves them."""

import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from fraud_detection.model.files import CURRENT, MANIFEST, ONNX, PICKLE
from fraud_detection.model.read import read_manifest
from fraud_detection.model.write import write_version

Spoil = Callable[[Path], object]
"""Brings a version, given its folder, into a bad state."""


def without(name: str) -> Spoil:
    return lambda version: (version / name).unlink()


def replaced(name: str, make: Callable[[Path], object]) -> Spoil:
    """Put something else in the place of a file of the version."""

    def spoil(version: Path) -> None:
        (version / name).unlink()
        make(version / name)

    return spoil


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


def in_a_loop(path: Path) -> None:
    path.symlink_to(path.name)


def leading(target: str) -> Callable[[Path], object]:
    return lambda path: path.symlink_to(target)


def manifest_of(content: bytes) -> Spoil:
    return lambda version: (version / MANIFEST).write_bytes(content)


def manifest_with(**fields: object) -> Spoil:
    def spoil(version: Path) -> None:
        path = version / MANIFEST
        path.write_text(json.dumps(json.loads(path.read_bytes()) | fields))

    return spoil


def manifest_that_repeats_a_key(version: Path) -> None:
    path = version / MANIFEST
    path.write_text(path.read_text().replace("{", '{"threshold": 0.5,', 1))


def file_named(name: str, size: object = 1) -> Spoil:
    """Let the manifest list one more file."""

    def spoil(version: Path) -> None:
        files = json.loads((version / MANIFEST).read_bytes())["files"]
        manifest_with(files=files | {name: {"sha256": "0" * 64, "size": size}})(version)

    return spoil


def sized(size: object, name: str = ONNX) -> Spoil:
    """Let the manifest give another size of a file."""

    def spoil(version: Path) -> None:
        files = json.loads((version / MANIFEST).read_bytes())["files"]
        manifest_with(files=files | {name: files[name] | {"size": size}})(version)

    return spoil


def current_leads(to: str) -> Spoil:
    def spoil(version: Path) -> None:
        current = version.parent / CURRENT
        current.unlink()
        current.symlink_to(to)

    return spoil


def renamed(name: str) -> Spoil:
    """Serve a whole version under another name."""

    def spoil(version: Path) -> None:
        shutil.copytree(version, version.parent / name)
        current_leads(name)(version)

    return spoil


def classic_path_in_a_loop(version: Path) -> None:
    path = version.parent / PICKLE
    path.unlink()
    in_a_loop(path)


BAD_STATES: Mapping[str, tuple[Spoil, str]] = {
    "current leads to itself": (current_leads(CURRENT), "unreadable"),
    "the classic path leads to itself": (classic_path_in_a_loop, "unreadable"),
    "current leads nowhere": (current_leads("nowhere"), "missing"),
    "current leads to a device": (current_leads("/dev/zero"), "missing"),
    "a name with a newline": (renamed("a\nb"), "missing"),
    "a name that is not UTF-8": (renamed(os.fsdecode(b"v\xff")), "missing"),
    "no version": (shutil.rmtree, "missing"),
    "no manifest": (without(MANIFEST), "missing"),
    "a manifest that leads nowhere": (replaced(MANIFEST, leading("nowhere")), "missing"),
    "a manifest that leads to itself": (replaced(MANIFEST, in_a_loop), "unreadable"),
    "a folder as manifest": (replaced(MANIFEST, Path.mkdir), "unreadable"),
    "a named pipe as manifest": (replaced(MANIFEST, os.mkfifo), "unreadable"),
    "a device as manifest": (replaced(MANIFEST, leading("/dev/zero")), "unreadable"),
    "a manifest of a terabyte": (replaced(MANIFEST, sparse), "unreadable"),
    "an empty manifest": (manifest_of(b""), "manifest"),
    "a manifest of lists in lists": (manifest_of(b"[" * 100_000), "manifest"),
    "a manifest of objects in objects": (manifest_of(b'{"format": 1, "verdict": ' + b'{"a":' * 100_000), "manifest"),
    "a manifest that is not UTF-8": (manifest_of(b'{"format": 1, "created": "\xff"}'), "manifest"),
    "a manifest that is a number": (manifest_of(b"1"), "manifest"),
    "a key twice": (manifest_that_repeats_a_key, "manifest"),
    "NaN": (manifest_with(threshold=float("nan")), "manifest"),
    "infinity": (manifest_with(threshold=float("inf")), "manifest"),
    "a number beyond every float": (manifest_of(b'{"format": 1, "threshold": 1e999}'), "manifest"),
    "an integer of 5,000 digits": (manifest_of(b'{"format": 1, "seed": ' + b"9" * 5000 + b"}"), "manifest"),
    "an integer beyond every float": (manifest_with(threshold=10**400), "manifest"),
    "a text as threshold": (manifest_with(threshold="0.4"), "manifest"),
    "a time that is a long text": (manifest_with(created="x" * 100_000), "manifest"),
    "a feature whose name is a long text": (manifest_with(features=["x\n" * 50_000]), "features"),
    "no features": (manifest_with(features=[]), "manifest"),
    "a number as features": (manifest_with(features=5), "manifest"),
    "a list as golden rows": (manifest_with(golden=[]), "manifest"),
    "golden rows of texts": (manifest_with(golden={"rows": [["a"]], "scores": [0.1]}), "manifest"),
    "golden rows of unequal length": (manifest_with(golden={"rows": [[0.0], []], "scores": [0.1, 0.2]}), "unreadable"),
    "a list as files": (manifest_with(files=[ONNX]), "manifest"),
    "a parent outside": (manifest_with(parent="../../elsewhere"), "manifest"),
    "a training window of one time": (manifest_with(training_window=["2026-01-01"]), "manifest"),
    "a file outside": (file_named("../outside.txt"), "manifest"),
    "a file at an absolute path": (file_named("/tmp/outside.txt"), "manifest"),  # noqa: S108  never written
    "a file whose name has a newline": (file_named("a\nb"), "manifest"),
    "a file without a name": (file_named(""), "manifest"),
    "a negative size": (sized(-1), "manifest"),
    "a size of 10^30": (sized(10**30), "manifest"),
    "a model of a terabyte, announced": (sized(1 << 40), "manifest"),
    "a pickle of a terabyte, announced": (sized(1 << 40, PICKLE), "manifest"),
    "a size that is true": (sized(size=True), "manifest"),
    "another size": (sized(7), "digest"),
    "no model": (without(ONNX), "missing"),
    "a model that leads nowhere": (replaced(ONNX, leading("nowhere")), "missing"),
    "a model that leads to itself": (replaced(ONNX, in_a_loop), "unreadable"),
    "a folder as model": (replaced(ONNX, Path.mkdir), "unreadable"),
    "a named pipe as model": (replaced(ONNX, os.mkfifo), "unreadable"),
    "a device as model": (replaced(ONNX, leading("/dev/zero")), "unreadable"),
    "a model of a terabyte": (replaced(ONNX, sparse), "digest"),
    "a named pipe as pickle": (replaced(PICKLE, os.mkfifo), "unreadable"),
    "a pickle of a terabyte": (replaced(PICKLE, sparse), "digest"),
    "a pickle that leads nowhere": (replaced(PICKLE, leading("nowhere")), "missing"),
}
"""Each bad state of a promoted version, with the reason for which it is refused."""


def with_onnx(content: bytes, version: Path) -> str:
    """Write a version like another one, but of these bytes as model.onnx, whole and with its right digest."""
    manifest = dataclasses.replace(read_manifest(version), created="2026-01-02 00:00:00.000000")
    return write_version(version.parent, {ONNX: content, PICKLE: (version / PICKLE).read_bytes()}, manifest)


def endless_graph() -> bytes:
    """A model that loads, and whose scoring takes 2^62 rounds."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["goes_on"], ["goes_on_again"]),
            helper.make_node("Identity", ["state"], ["next_state"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("round", TensorProto.INT64, []),
            helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("goes_on_again", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next_state", TensorProto.FLOAT, None),
        ],
    )
    loop = helper.make_node("Loop", ["rounds", "true", "two_columns"], ["probabilities"], body=body)
    true = helper.make_tensor("true", TensorProto.BOOL, [], [True])
    return _graph([loop], [_whole_numbers("rounds", 2**62), true])


def greedy_graph() -> bytes:
    """A model that loads, and whose scoring takes 64 GiB."""
    return _graph(
        [
            helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
            helper.make_node("ReduceSum", ["zeros", "axes"], ["zero"], keepdims=0),
            helper.make_node("Add", ["two_columns", "zero"], ["probabilities"]),
        ],
        [_whole_numbers("shape", [1 << 16, 1 << 18]), _whole_numbers("axes", [0, 1])],
    )


def _graph(nodes: Sequence[Any], constants: Sequence[Any]) -> bytes:
    columns = helper.make_node("Slice", ["transactions", "start", "end", "axis"], ["two_columns"])
    graph = helper.make_graph(
        [columns, *nodes],
        "fraud_probability",
        [helper.make_tensor_value_info("transactions", TensorProto.FLOAT, [None, 29])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 2])],
        initializer=[_whole_numbers(*pair) for pair in (("start", [0]), ("end", [2]), ("axis", [1]))] + [*constants],
    )
    opset = helper.make_opsetid("", 17)
    content: bytes = helper.make_model(graph, opset_imports=[opset], ir_version=8).SerializeToString()
    onnx.checker.check_model(content)
    return content


def _whole_numbers(name: str, values: int | Sequence[int]) -> Any:
    return helper.make_tensor(name, TensorProto.INT64, np.shape(values), np.ravel(values))

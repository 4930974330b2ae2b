"""What a process answers about a pickle is checked, and so is how that process ended."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.ensemble import BaggingClassifier
from sklearn.linear_model import LogisticRegression

from fraud_detection.child import NoAnswer
from fraud_detection.features import Feature, FeatureList
from fraud_detection.model.files import ONNX, PICKLE
from fraud_detection.model.read import read_manifest
from fraud_detection.model.write import write_version
from jobs.training import foreign
from jobs.training.foreign import CannotAdopt, convert, require_loadable
from jobs.training.golden import GOLDEN_ROWS
from jobs.training.usable import score

TWO = FeatureList((Feature("amount"), Feature("age_days")))
ROWS = np.random.default_rng(1).normal(size=(200, 2))


def test_a_process_converts_a_classifier_and_returns_facts_and_bytes(tmp_path: Path) -> None:
    classifier = BaggingClassifier(LogisticRegression(), 3, n_jobs=2, random_state=1)  # asks for processes
    joblib.dump(classifier.fit(ROWS, (ROWS[:, 0] > 1).astype(int)), tmp_path / "theirs.pkl")

    converted = convert(tmp_path / "theirs.pkl", TWO, ROWS)

    assert (converted.kind, converted.notes, set(converted.files)) == ("BaggingClassifier", [], {ONNX, PICKLE})
    assert np.abs(score(converted.files[ONNX], ROWS) - classifier.predict_proba(ROWS)[:, 1]).max() <= 1e-6
    assert converted.golden.scores == score(converted.files[ONNX], np.array(converted.golden.rows)).tolist()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"cbuiltins\nbytearray\n(I3000000000\ntR.", "needs more than 2 GiB of memory"),
        (b"\x80\x04" + b"]" * 300_000 + b"a" * 299_999 + b".", "expected a classifier with predict_proba, got list"),
    ],
    ids=["memory", "depth"],
)
def test_what_a_process_refuses_is_told_in_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "theirs.pkl").write_bytes(content)

    with pytest.raises(CannotAdopt, match=f"^{tmp_path}/theirs.pkl: {message}") as refused:
        convert(tmp_path / "theirs.pkl", TWO, ROWS)

    assert "\n" not in str(refused.value)


def reply(**changed: object) -> dict[str, Any]:
    golden = {"rows": [[0.5, 1.5]] * GOLDEN_ROWS, "scores": [0.25] * GOLDEN_ROWS}
    return {
        "kind": "LogisticRegression",
        "notes": [],
        "keeps_rows": [],
        "largest_difference": 0.0,
        "golden": golden,
        **changed,
    }


Answering = Callable[..., None]


@pytest.fixture
def answering(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Answering:
    """Let a process that a hostile file took over answer: as it likes, after a command of its own."""

    def answer(text: str, *, then: str = "", files: tuple[str, ...] = (ONNX, PICKLE)) -> None:
        (tmp_path / "answer").write_text(text)
        copies = " ".join(f"; echo content > {name}" for name in files)
        program = tmp_path / "python"
        program.write_text(f"#!/bin/sh\ncat {tmp_path}/answer > reply.json{copies}\n{then}\n")
        program.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(program))

    return answer


def test_facts_within_their_bounds_are_taken(answering: Answering) -> None:
    answering(json.dumps(reply(kind="Logistic\x1b[2J", notes=["one\ntwo", *["more"] * 100])))

    converted = convert(Path("theirs.pkl"), TWO, ROWS)

    assert converted.kind == "Logistic [2J"
    assert converted.notes == ["one two", *["more"] * 9]
    assert converted.files == {ONNX: b"content\n", PICKLE: b"content\n"}
    assert converted.golden.rows == [[0.5, 1.5]] * GOLDEN_ROWS


NO_JSON = "theirs.pkl: a new process answered with what is no JSON"
NO_MODEL = r"theirs.pkl: a new process answered with what is no model \("


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", NO_JSON),
        ("[" * 100_000, NO_JSON),
        ("[]", f"{NO_JSON} object"),
        ("{}", NO_MODEL),
        (json.dumps(reply(largest_difference=float("nan"))), NO_MODEL),
        (json.dumps(reply(largest_difference=0.1)), NO_MODEL),
        (json.dumps(reply(largest_difference=[0])), NO_MODEL),
        (json.dumps(reply(notes=None)), NO_MODEL),
        (json.dumps(reply(golden=[])), NO_MODEL),
        (json.dumps(reply(golden={"rows": [[1.0]], "scores": [0.5]})), NO_MODEL),
        (json.dumps(reply(golden={"rows": [[1, 2]] * GOLDEN_ROWS, "scores": [1.5] * GOLDEN_ROWS})), NO_MODEL),
        (json.dumps(reply(golden={"rows": [["x", 2]] * GOLDEN_ROWS, "scores": [0.5] * GOLDEN_ROWS})), NO_MODEL),
        (json.dumps(reply(golden={"rows": [[1], [1, 2]] * 12, "scores": [0.5] * GOLDEN_ROWS})), NO_MODEL),
        (json.dumps({"refused": "one\x1b[2J\ntwo " + "x " * 5000}), r"theirs.pkl: one \[2J two x x .* …$"),
        (json.dumps({"refused": {"a": "dict"}}), r"theirs.pkl: {'a': 'dict'}"),
    ],
)
def test_an_answer_of_another_form_is_refused(answering: Answering, text: str, message: str) -> None:
    answering(text)

    with pytest.raises(CannotAdopt, match=f"^{message}"):
        convert(Path("theirs.pkl"), TWO, ROWS)


@pytest.mark.parametrize(
    ("then", "files", "message"),
    [
        ("exit 0", (PICKLE,), "it ended and left no model.onnx"),
        ("exit 0", (ONNX,), "it ended and left no rf_model.pkl"),
        (f"ln -sf {os.devnull} model.onnx", (PICKLE,), "it ended and left no model.onnx"),
        ("exit 3", (ONNX, PICKLE), r"exit code 3 \(it gave no reason\)"),
        ("yes flood | head -c 3000000 >&2; exit 3", (ONNX, PICKLE), r"exit code 3 \(flood\)"),
        ("yes flood | head -c 3000000; exit 3", (ONNX, PICKLE), r"exit code 3 \(it gave no reason\)"),
        ("kill -SEGV $$", (ONNX, PICKLE), "ended by SIGSEGV; it may use 2 GiB of memory"),
        ("head -c 2000000 /dev/zero > reply.json", (ONNX, PICKLE), "reply.json is no file of at most 1,048,576 bytes"),
        ("rm reply.json", (ONNX, PICKLE), "it ended and left no reply.json"),
    ],
)
def test_an_end_without_a_whole_answer_is_told(
    answering: Answering, then: str, files: tuple[str, ...], message: str
) -> None:
    answering(json.dumps(reply()), then=then, files=files)

    with pytest.raises(NoAnswer, match=f"^theirs.pkl: its conversion in a new process gave no verdict: {message}"):
        convert(Path("theirs.pkl"), TWO, ROWS)


def test_a_conversion_without_end_is_stopped(answering: Answering, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreign, "CONVERSION_SECONDS", 0.5)
    answering(json.dumps(reply()), then="while true; do :; done")

    message = r"no verdict: no answer within 0\.5 seconds; try again when the machine is less busy, or a smaller model$"
    with pytest.raises(NoAnswer, match=message):
        convert(Path("theirs.pkl"), TWO, ROWS)


def test_a_whole_version_is_loadable(make_version: Callable[..., str], tmp_path: Path) -> None:
    require_loadable(tmp_path / make_version(tmp_path), Path("theirs.pkl"))


def test_a_version_whose_pickle_would_run_something_is_not(make_version: Callable[..., str], tmp_path: Path) -> None:
    whole = tmp_path / make_version(tmp_path)
    files = {ONNX: (whole / ONNX).read_bytes(), PICKLE: b"cposix\nsystem\n(S'touch ran'\ntR."}
    version = write_version(tmp_path / "hostile", files, read_manifest(whole))

    with pytest.raises(
        CannotAdopt,
        match=r"does not load in a new process: rf_model.pkl cannot be used \(NotAllowed: names posix\.system",
    ):
        require_loadable(tmp_path / "hostile" / version, Path("theirs.pkl"))


def test_a_version_that_takes_too_long_is_not(
    make_version: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foreign, "CHECK_SECONDS", 0.01)

    message = r"^theirs\.pkl: its check in a new process gave no verdict: no answer within 0\.01 seconds$"
    with pytest.raises(NoAnswer, match=message):
        require_loadable(tmp_path / make_version(tmp_path), Path("theirs.pkl"))

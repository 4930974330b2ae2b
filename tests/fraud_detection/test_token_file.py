"""The file of named tokens is read whole or not at all, and no message repeats what it holds."""

import hashlib
import os
from pathlib import Path

import pytest

from fraud_detection.model.files import NAMED_LIMIT_BYTES
from fraud_detection.token_file import MAX_TOKENS, BadTokenFile, read_tokens, remove_token
from tests.support.tokens import new_token

A, B, C = (f"sha256:{hashlib.sha256(token).hexdigest()}" for token in (b"token a", b"token b", b"token c"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tokens"


def test_comments_empty_lines_and_the_ends_of_lines_of_windows_are_no_matter(file: Path) -> None:
    file.write_bytes(f"\ufeff# ours\r\n\r\n  checkout\tpredict  {A}  # the shop\r\nhelpdesk read,label {B}".encode())

    checkout, helpdesk = read_tokens(file)

    assert (checkout.name, checkout.scopes) == ("checkout", frozenset({"predict"}))
    assert (helpdesk.name, helpdesk.scopes) == ("helpdesk", frozenset({"read", "label"}))
    assert helpdesk.digest == hashlib.sha256(b"token b").digest()


def test_the_lower_of_two_lines_is_the_newer_token(file: Path) -> None:
    file.write_text(f"shop predict {A}\nshop predict {B}\n")

    assert [token.is_newest for token in read_tokens(file)] == [False, True]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f"shop {A}", "line 1: expected three words"),
        (f"shop predict {A} more", "line 1: expected three words"),
        (f"ok read {B}\n\nShop predict {A}", "line 3: expected as its name 1 to 64 small letters"),
        (f"current predict {A}", "line 1: expected as its name"),
        (f"{'x' * 65} predict {A}", "line 1: expected as its name"),
        (f"shop predict,write {A}", "line 1: expected as its scopes some of predict, label, read, metrics"),
        (f"shop predict, {A}", "line 1: expected as its scopes"),
        (f"shop Predict {A}", "line 1: expected as its scopes"),
        ("shop predict my-secret-token", "line 1: expected sha256: and 64 hexadecimal digits"),
        (f"shop predict {A.upper()}", "line 1: expected sha256:"),
        (f"shop predict {A}\nshop read {B}", "line 2: expected the scopes of the other line of shop"),
        (f"shop predict {A}\nother read {A}", "line 2: expected another digest than in a line above"),
        (
            f"shop read {A}\nshop read {B}\nshop read sha256:{'0' * 64}",
            "line 3: expected at most two lines of shop",
        ),
    ],
)
def test_a_wrong_line_is_named_with_its_reason_and_never_repeated(file: Path, content: str, message: str) -> None:
    file.write_text(content)

    with pytest.raises(BadTokenFile) as refused:
        read_tokens(file)

    assert message in str(refused.value)
    assert "my-secret-token" not in str(refused.value)
    assert A[7:] not in str(refused.value)


def test_what_is_no_text_or_too_large_is_refused(file: Path, tmp_path: Path) -> None:
    file.write_bytes(f"shop predict {A}\n".encode() + b"\xff\xfe")
    with pytest.raises(BadTokenFile, match="line 2: expected text in UTF-8"):
        read_tokens(file)
    file.write_bytes(b"#" * (NAMED_LIMIT_BYTES + 1))
    with pytest.raises(BadTokenFile, match="larger than 1,048,576 bytes"):
        read_tokens(file)
    with pytest.raises(BadTokenFile, match=r"cannot be read \(No such file or directory\)"):
        read_tokens(tmp_path / "missing")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    for no_file, kind in ((tmp_path, "a folder"), (Path("/dev/zero"), "a device"), (tmp_path / "pipe", "a named pipe")):
        with pytest.raises(BadTokenFile, match=rf"cannot be read \(expected a file, got {kind}\)"):
            read_tokens(no_file)
    for change in (lambda path: new_token(path, "desk", ["read"]), lambda path: remove_token(path, "desk")):
        with pytest.raises(BadTokenFile, match="expected a file, got a link that leads to itself; give the path of a"):
            change(tmp_path / "loop")


def test_a_file_has_at_most_a_thousand_tokens(file: Path) -> None:
    lines = [f"client-{number} read sha256:{number:064x}\n" for number in range(MAX_TOKENS + 1)]
    file.write_text("".join(lines[:-1]))
    assert len(read_tokens(file)) == MAX_TOKENS

    with pytest.raises(BadTokenFile, match="line 1001: expected at most 1,000 tokens; remove those"):
        new_token(file, "one-more", ["read"])
    file.write_text("# all of them\n" + "".join(lines))
    with pytest.raises(BadTokenFile, match="line 1002: expected at most 1,000 tokens"):
        read_tokens(file)


@pytest.mark.parametrize("end", ["\u2028", "\x85", "\f", "\v", "\x1c"])
def test_what_ends_no_line_for_the_reader_ends_none_for_the_removal(file: Path, end: str) -> None:
    file.write_text(f"shop predict {A} # the shop{end}desk label {B}\nother{end}read {C}\n", newline="")

    remove_token(file, "shop")

    assert [token.name for token in read_tokens(file)] == ["other"]
    assert "desk" not in file.read_text()


def test_a_change_that_would_spoil_the_file_is_not_written(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text(f"shop predict {A}\n")
    monkeypatch.setattr("fraud_detection.token_file._line", lambda *_: "desk label a-broken-line\n")

    with pytest.raises(BadTokenFile, match="line 2"):
        new_token(file, "desk", ["label"])

    assert file.read_text() == f"shop predict {A}\n"


def test_the_name_of_the_audit_for_no_token_is_taken(file: Path) -> None:
    with pytest.raises(BadTokenFile, match="another word than current, none, previous"):
        new_token(file, "none", ["label"])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_a_changed_file_keeps_its_owner(file: Path) -> None:
    file.write_text(f"shop predict {A}\n")
    os.chown(file, 12345, 54321)

    new_token(file, "desk", ["label"])

    assert (file.stat().st_uid, file.stat().st_gid) == (12345, 54321)

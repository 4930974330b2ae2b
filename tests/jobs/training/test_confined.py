"""A confined process is refused what a free one may do, and ends with all that it started."""

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from fraud_detection.child import NoAnswer
from jobs.training.confined import printable, received, run_confined
from tests.support.project import ROOT
from tests.support.waiting import wait_until

AS_A_USER = "import os, threading; os.geteuid() or os.setuid(65534); "
CONFINE = "from jobs.training.confined import confine; assert confine() == []; "


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("import socket; socket.socket()", "PermissionError"),
        ("import socket; socket.socket(socket.AF_UNIX)", "PermissionError"),
        ("import os; os.fork() or os._exit(0)", "PermissionError"),
        ("import os; os.execv('/bin/true', ['true'])", "PermissionError"),
        ("import subprocess; subprocess.run(['true'], check=True)", "PermissionError"),
        ("import os; os.kill(os.getppid(), 0)", "PermissionError"),
        ("import os; os.pidfd_open(os.getppid())", "PermissionError"),
        (
            f"{AS_A_USER}threading.Thread(target=print).start()",
            "can't start new thread",
        ),  # RLIMIT_NPROC counts them too
        ("bytearray(3 * 1024**3)", "MemoryError"),
        ("open('large', 'wb').truncate(2 * 1024**3)", "File too large"),
    ],
)
def test_a_confined_process_is_refused_what_a_free_one_may(tmp_path: Path, code: str, error: str) -> None:
    run_confined(["-c", code], tmp_path, seconds=60)

    with pytest.raises(NoAnswer, match=rf"^exit code 1 \(.*{error}"):
        run_confined(["-c", CONFINE + code], tmp_path, seconds=60)


def test_it_inherits_no_secret_no_file_and_no_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_TOKEN", "secret")
    monkeypatch.setenv("DATABASE_URL", "postgresql://app:secret@db/fraud")
    monkeypatch.setenv("LANG", "C.UTF-8")
    inherited, _ = os.pipe()
    os.set_inheritable(inherited, True)
    code = (
        "import os; "
        "open('found', 'w').write('\\n'.join([*sorted(os.environ), os.getcwd(), *os.listdir('/proc/self/fd')])); "
        "assert os.getsid(0) == os.getpid()"
    )

    run_confined(["-c", code], tmp_path, seconds=60)

    *variables, folder, _, _, _, _, _ = (tmp_path / "found").read_text().splitlines()  # 0 to 2, and two of the code's
    assert set(variables) <= {
        "HOME", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "MALLOC_ARENA_MAX", "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS", "PYTHONHOME", "PYTHONPATH", "TMPDIR", "TZ",
    }  # fmt: skip
    assert "LANG" in variables
    assert folder == str(tmp_path)


def has_ended(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_at_its_deadline_it_is_killed_with_what_it_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nsleep 600 &\necho $$ $! > pids\nwait\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))

    with pytest.raises(NoAnswer, match="no answer within 2 seconds"):
        run_confined([], tmp_path, seconds=2)

    for pid in map(int, (tmp_path / "pids").read_text().split()):
        wait_until(functools.partial(has_ended, pid))


def test_it_does_not_outlive_its_parent(tmp_path: Path) -> None:
    code = f"{CONFINE}import os, time; print(os.getpid(), file=open('pid', 'w'), flush=True); time.sleep(600)"
    start = "import sys; from pathlib import Path; from jobs.training.confined import run_confined; "
    start += "run_confined(['-c', sys.argv[1]], Path(sys.argv[2]), seconds=600)"
    parent = subprocess.Popen([sys.executable, "-c", start, code, tmp_path], cwd=ROOT)
    pid = tmp_path / "pid"
    wait_until(lambda: pid.exists() and pid.read_text(), process=parent)

    parent.kill()
    parent.wait()

    wait_until(lambda: has_ended(int(pid.read_text())))


def test_what_it_started_does_not_outlive_its_own_good_end(tmp_path: Path) -> None:
    run_confined(["-c", "import subprocess; print(subprocess.Popen(['sleep', '600']).pid, file=open('pid', 'w'))"],
                 tmp_path, seconds=60)  # fmt: skip

    wait_until(lambda: has_ended(int((tmp_path / "pid").read_text())))


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import sys; sys.exit(7)", r"exit code 7 \(it gave no reason\)"),
        ("import os; os.kill(os.getpid(), 11)", "ended by SIGSEGV; it may use 2 GiB of memory"),
        ("raise ValueError('one\\x1b[2Jtwo')", r"exit code 1 \(ValueError: one \[2Jtwo\)"),
        ("import sys; sys.exit('x' * 1_000_000)", r"exit code 1 \( …\)|exit code 1 \(…\)"),
    ],
)
def test_how_it_ended_is_said_in_one_bounded_line(tmp_path: Path, code: str, message: str) -> None:
    with pytest.raises(NoAnswer, match=f"^{message}$"):
        run_confined(["-c", code], tmp_path, seconds=60)


def link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


@pytest.mark.parametrize(
    ("leave", "message"),
    [
        (Path.exists, r"it ended and left no reply \(No such file"),
        (link, "it ended and left no reply"),
        (os.mkfifo, "reply is no file of at most 10 bytes"),
        (Path.mkdir, "it ended and left no reply"),
        (lambda path: path.write_bytes(b"x" * 11), "reply is no file of at most 10 bytes"),
    ],
)
def test_only_a_small_file_is_received(tmp_path: Path, leave: Callable[[Path], object], message: str) -> None:
    leave(tmp_path / "reply")

    with pytest.raises(NoAnswer, match=message):
        received(tmp_path, "reply", 10)


def test_a_file_within_the_limit_is_received_whole(tmp_path: Path) -> None:
    (tmp_path / "reply").write_bytes(b"0123456789")

    assert received(tmp_path, "reply", 10) == b"0123456789"


def test_text_from_elsewhere_becomes_one_short_line() -> None:
    assert printable("a\nb\x1b[31m  c\u202ed", 100) == "a b [31m c d"
    assert printable("word " * 100, 20) == "word word word …"

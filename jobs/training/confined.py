"""Runs Python in a child process with limits, for a file that may be hostile."""

import contextlib
import ctypes
import errno
import os
import platform
import resource
import signal
import stat
import struct
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import jobs
from fraud_detection.child import NoAnswer

MEMORY_BYTES = 2 * 1024**3
"""Of address space: with one thread, scikit-learn, skl2onnx and ONNX Runtime reserve 0.6 GB of it."""
FILE_BYTES = 1024**3
_KEPT_VARIABLES = ("LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH", "PYTHONHOME", "PYTHONPATH")
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}


def run_confined(command: Sequence[str], folder: Path, *, seconds: float) -> None:
    """Run `python COMMAND` in an empty folder until it ends, and kill it with all that it started after `seconds`.

    It inherits no token, no address and no open file. The code that it runs calls `confine` for the other limits.

    Raises NoAnswer unless it ended with exit code 0.
    """
    with (folder / "stderr.txt").open("w+b") as stderr:
        try:
            child = subprocess.Popen(  # noqa: S603  our own Python, without a shell
                [sys.executable, "-P", *command],  # -P: what lies in the folder is never imported
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                cwd=folder,
                env=_environment(folder),
                start_new_session=True,
            )
        except OSError as error:  # no process, memory or descriptor was left
            raise NoAnswer("untried", f"a new process could not be started ({error.strerror})") from error
        try:
            code = child.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise NoAnswer("timeout", f"no answer within {seconds:g} seconds") from error
        finally:
            with contextlib.suppress(ProcessLookupError):  # all have ended
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        if code < 0:
            gibibytes = MEMORY_BYTES // 1024**3
            raise NoAnswer("crashed", f"ended by {signal.Signals(-code).name}; it may use {gibibytes} GiB of memory")
        if code > 0:
            stderr.seek(max(0, stderr.seek(0, os.SEEK_END) - 10_000))
            lines = stderr.read().decode(errors="replace").strip().splitlines() or ["it gave no reason"]
            raise NoAnswer("untried", f"exit code {code} ({printable(lines[-1], 300)})")


def _environment(folder: Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    ours = str(Path(jobs.__path__[0]).parent)
    paths = [ours, kept["PYTHONPATH"]] if kept.get("PYTHONPATH") else [ours]
    return {
        **kept,
        **_ONE_THREAD,
        "PYTHONPATH": os.pathsep.join(paths),
        "HOME": str(folder),
        "TMPDIR": str(folder),
    }


def received(folder: Path, name: str, limit: int) -> bytes:
    """Return a file that a confined process left in its folder; raises NoAnswer unless it is one within the limit."""
    try:
        with open(folder / name, "rb", opener=_without_following) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode) or found.st_size > limit:
                raise NoAnswer("untried", f"{name} is no file of at most {limit:,} bytes")
            return file.read(limit)
    except OSError as error:
        raise NoAnswer("untried", f"it ended and left no {name} ({error.strerror})") from error


def _without_following(path: str, flags: int) -> int:
    """Open neither the target of a link nor, for ever, a pipe without a writer."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def printable(text: str, length: int) -> str:
    """Return text of unknown origin as one line without control characters, cut to a length."""
    line = "".join(letter if letter.isprintable() else " " for letter in text)
    return textwrap.shorten(line, length, placeholder=" …")


def confine() -> list[str]:
    """Limit this process for the rest of its life; return a sentence about each limit that the kernel refused.

    It may use 2 GiB of memory and write files of 1 GiB, and dies with its parent. The kernel refuses it sockets, new
    processes and programs, and signals.
    """
    for limit, value in (
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_FSIZE, FILE_BYTES),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),  # where the filter below is missing, this stops forks, except those of root
    ):
        hard = resource.getrlimit(limit)[1]
        allowed = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (allowed, allowed))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    try:
        _filter_system_calls(libc)
    except OSError as error:
        return [f"The kernel did not close the network to the process that read it ({error.strerror})."]
    return []


_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_SECCOMP_SET_MODE_FILTER, _SECCOMP_FILTER_FLAG_TSYNC = 1, 1
_X86_64 = 0xC000003E
_SECCOMP, _CLONE, _CLONE3, _CLONE_THREAD = 317, 56, 435, 0x10000
_X32 = 0x40000000
_REFUSED = {
    "socket": 41,
    "socketpair": 53,
    "connect": 42,
    "io_uring_setup": 425,  # it can open sockets
    "fork": 57,
    "vfork": 58,
    "execve": 59,
    "execveat": 322,
    "kill": 62,
    "tkill": 200,
    "tgkill": 234,
    "rt_sigqueueinfo": 129,
    "rt_tgsigqueueinfo": 297,
    "pidfd_open": 434,
    "ptrace": 101,
    "process_vm_readv": 310,
    "process_vm_writev": 311,
}
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _IF_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _FAIL_WITH = 0x7FFF0000, 0x00050000
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # offsets in the kernel's struct seccomp_data


def _filter_system_calls(libc: ctypes.CDLL) -> None:
    """Install a seccomp filter for every thread of this process; raises OSError if that is not possible."""
    if platform.machine() != "x86_64":
        raise OSError(errno.ENOSYS, f"system calls are filtered on x86_64 only, this is {platform.machine()}")
    refuse = (_RETURN, 0, 0, _FAIL_WITH | errno.EPERM)
    program = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_IF_EQUAL, 1, 0, _X86_64),
        refuse,
        (_LOAD, 0, 0, _NUMBER),
        (_IF_AT_LEAST, 0, 1, _X32),
        refuse,
        (_IF_EQUAL, 0, 1, _CLONE3),
        (_RETURN, 0, 0, _FAIL_WITH | errno.ENOSYS),  # its flags cannot be seen; the C library then uses clone
    ]
    for number in _REFUSED.values():
        program += [(_IF_EQUAL, 0, 1, number), refuse]
    program += [
        (_IF_EQUAL, 1, 0, _CLONE),
        (_RETURN, 0, 0, _ALLOW),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_IF_ANY_BIT, 1, 0, _CLONE_THREAD),  # a thread, not a process
        refuse,
        (_RETURN, 0, 0, _ALLOW),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *instruction) for instruction in program))
    described = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program), ctypes.addressof(code)))
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.syscall(
        _SECCOMP, _SECCOMP_SET_MODE_FILTER, _SECCOMP_FILTER_FLAG_TSYNC, described
    ):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

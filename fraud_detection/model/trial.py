"""Tries a model in a child process, because a damaged or hostile graph may hang, crash or take all memory."""

import ctypes
import json
import os
import resource
import signal
import sys

import numpy as np

from fraud_detection.child import ask
from fraud_detection.exit_codes import ExitCode
from fraud_detection.model.session import Session

TRIAL_SECONDS = 12.0  # gunicorn ends a worker after 30, in which the model is loaded twice when the API starts
_MEMORY_BYTES = 256 * 1024 * 1024
_MEMORY_PER_BYTE = 24  # a forest takes 12 times the size of its file
_INHERITED = ("LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "PYTHONPATH")  # no token, no address of a database
_PR_SET_PDEATHSIG = 1


def problem_with(onnx: bytes, rows: list[list[float]]) -> str | None:
    """Load a model and score rows in a child process; return why ONNX Runtime cannot, None if it can.

    Raises NoAnswer if the child was killed, crashed, or took longer than TRIAL_SECONDS.
    """
    return ask(
        "fraud_detection.model.trial",
        str(_MEMORY_BYTES + _MEMORY_PER_BYTE * len(onnx)),
        given=json.dumps(rows).encode() + b"\n" + onnx,  # not a path, behind which the bytes could change
        seconds=TRIAL_SECONDS,
        environ={name: os.environ[name] for name in _INHERITED if name in os.environ} | {"OPENBLAS_NUM_THREADS": "1"},
    )


def main(arguments: list[str]) -> int:
    """`python -m fraud_detection.model.trial MEMORY_BYTES`: the child of `problem_with`."""
    _restrain(int(arguments[0]))
    rows = json.loads(sys.stdin.buffer.readline())
    onnx = sys.stdin.buffer.read()
    try:
        Session(onnx).score(np.array(rows, dtype=np.float64))
    except MemoryError:  # perhaps the machine's, not the model's
        raise
    except Exception as error:
        sys.stderr.write(f"{type(error).__name__}\n")  # its text may hold pieces of the file
        return ExitCode.UNUSABLE
    return ExitCode.DONE


def _restrain(memory_bytes: int) -> None:
    """Limit this process, and let it end with its parent."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    for limit, most in (
        (resource.RLIMIT_DATA, memory_bytes),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(limit)
        allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(limit, (allowed, allowed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

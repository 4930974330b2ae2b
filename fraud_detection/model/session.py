"""Opens model.onnx with ONNX Runtime and scores with it."""

import os

import numpy as np
from numpy.typing import NDArray

# The official builds report to their maker and keep a device id; a switch after the import has no effect.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime


class Session:
    """A model that is loaded. Loading and scoring raise a dozen types of ONNX Runtime's own."""

    def __init__(self, onnx: bytes) -> None:
        self._session = open_session(onnx)
        self._input: str = self._session.get_inputs()[0].name

    def score(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the fraud probability of each row, shape (n,), from 0 to 1."""
        (probabilities,) = self._session.run(["probabilities"], {self._input: matrix.astype(np.float32)})
        # float32 sums may end at 1.0000001
        scores: NDArray[np.float64] = np.minimum(probabilities[:, 1], 1.0, dtype=np.float64)
        return scores


def open_session(onnx: bytes) -> onnxruntime.InferenceSession:
    """Return a session for the bytes of a model; one thread keeps the order of summation, and so the scores, fixed."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])

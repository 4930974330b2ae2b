"""Turns a classifier into model.onnx and rf_model.pkl."""

import importlib.metadata
import logging
import pickle
import textwrap
from typing import Any

import numpy as np
import onnx
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType

from fraud_detection.features import FeatureList
from fraud_detection.model.files import ONNX, PICKLE
from jobs.training.usable import ExportFailed, score

_OPSET = 17
_LIBRARIES = ("numpy", "scikit-learn", "skl2onnx", "onnx", "onnxruntime")

logger = logging.getLogger(__name__)


def to_onnx(classifier: Any, features: FeatureList) -> bytes:
    """Convert a fitted scikit-learn classifier of two classes: float32 rows in, `probabilities` (n, 2) out.

    Raises ExportFailed.
    """
    try:
        # In float64, since a float32 sum over 100 trees strays up to 7e-7 from scikit-learn's; so it is 5e-8.
        return _convert(classifier, len(features), DoubleTensorType, onnx.TensorProto.DOUBLE)
    except Exception:  # the converters raise many types
        logger.info("%s has no float64 form; trying float32", type(classifier).__name__)
    try:
        return _convert(classifier, len(features), FloatTensorType, onnx.TensorProto.FLOAT)
    except Exception as error:
        raise ExportFailed(f"{type(classifier).__name__} cannot be converted to ONNX ({cause(error)})") from error


def cause(error: BaseException) -> str:
    """Return the innermost cause of an error as one line; the converters put whole models into their messages."""
    while error.__cause__ is not None:
        error = error.__cause__
    return textwrap.shorten(f"{type(error).__name__}: {error}", 200, placeholder=" …").removesuffix(":")


def _convert(classifier: Any, width: int, tensor: Any, kind: int) -> bytes:
    graph = convert_sklearn(
        classifier,
        name="fraud_probability",  # otherwise random, and equal models would differ in their digest
        initial_types=[("converted", tensor([None, width]))],
        options={id(classifier): {"zipmap": False}},
        target_opset=_OPSET,
    )
    cast = onnx.helper.make_node("Cast", ["transactions"], ["converted"], to=kind)
    graph.graph.node.insert(0, cast)
    del graph.graph.input[:]
    graph.graph.input.append(onnx.helper.make_tensor_value_info("transactions", onnx.TensorProto.FLOAT, [None, width]))
    content: bytes = graph.SerializeToString()
    score(content, np.zeros((1, width)))  # some graphs convert and cannot run
    return content


def export(classifier: Any, features: FeatureList) -> dict[str, bytes]:
    """Return model.onnx and rf_model.pkl of a classifier; `largest_difference` says whether they agree.

    Raises ExportFailed.
    """
    return {ONNX: to_onnx(classifier, features), PICKLE: pickle.dumps(classifier)}


def library_versions() -> dict[str, str]:
    """Return the versions of what makes and scores a model, for its manifest."""
    return {name: importlib.metadata.version(name) for name in _LIBRARIES}

"""Reads a pickled scikit-learn classifier, and calls nothing that such a classifier does not need."""

import bz2
import copyreg
import functools
import gzip
import importlib
import io
import lzma
import pickle
import pickletools
import re
from collections.abc import Callable
from pathlib import Path
from types import BuiltinFunctionType, FunctionType
from typing import IO, Any, ClassVar

import scipy.sparse
from joblib.compressor import BinaryZlibFile
from joblib.numpy_pickle import NumpyArrayWrapper, NumpyUnpickler
from sklearn.base import BaseEstimator

UNPACKED_BYTES = 512 * 1024**2
# By their first bytes, as joblib recognizes them.
_COMPRESSED: dict[bytes, Callable[[io.BufferedReader], io.BufferedIOBase]] = {
    b"\x78": BinaryZlibFile,
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZ": bz2.BZ2File,
    b"\x5d\x00": lzma.LZMAFile,
    b"\xfd7zXZ": lzma.LZMAFile,
}

# What pickle and joblib write for a model. Without these, which a program must write by hand: PERSID, BINPERSID,
# EXT1, EXT2, EXT4, INST, OBJ, DUP, NEXT_BUFFER, READONLY_BUFFER.
_OPCODES = """
    PROTO FRAME STOP MARK POP POP_MARK
    NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT
    STRING BINSTRING SHORT_BINSTRING UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8
    BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8
    EMPTY_LIST LIST APPEND APPENDS EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3
    EMPTY_DICT DICT SETITEM SETITEMS EMPTY_SET ADDITEMS FROZENSET
    GET BINGET LONG_BINGET PUT BINPUT LONG_BINPUT MEMOIZE
    GLOBAL STACK_GLOBAL REDUCE BUILD NEWOBJ NEWOBJ_EX
"""

_NAMES = {
    "builtins": "bool bytearray bytes complex dict float frozenset int list object range set slice str tuple",
    "collections": "OrderedDict defaultdict",
    "copyreg": "_reconstructor",
    "functools": "partial",
    "numpy": "dtype ndarray bool bool_ float32 float64 int8 int16 int32 int64 uint8 uint16 uint32 uint64",
    "numpy._core.multiarray": "_reconstruct scalar",
    "numpy._core.numeric": "_frombuffer",
    "numpy.ma": "MaskedArray",
    "numpy.ma.core": "MaskedArray _mareconstruct",
    "numpy.random._mt19937": "MT19937",
    "numpy.random._pcg64": "PCG64",
    "numpy.random._pickle": "__bit_generator_ctor __generator_ctor __randomstate_ctor",
    "numpy.random.bit_generator": "SeedSequence __pyx_unpickle_SeedSequence",
    "scipy.interpolate._bsplines": "BSpline",
    "scipy.interpolate._interpolate": "interp1d",
    "sklearn.metrics._dist_metrics": "newObj",
    "sklearn.neighbors._ball_tree": "newObj",
    "sklearn.neighbors._kd_tree": "newObj",
}
_ALLOWED = {(module, name) for module, names in _NAMES.items() for name in names.split()}

_PARTS_OF_ESTIMATORS = frozenset(
    {
        "sklearn._loss._loss",
        "sklearn._loss.link",
        "sklearn._loss.loss",
        "sklearn.calibration",
        "sklearn.ensemble._hist_gradient_boosting.predictor",
        "sklearn.feature_selection._mutual_info",
        "sklearn.feature_selection._univariate_selection",
        "sklearn.gaussian_process.kernels",
        "sklearn.linear_model._sgd_fast",
        "sklearn.metrics._dist_metrics",
        "sklearn.neighbors._ball_tree",
        "sklearn.neighbors._kd_tree",
        "sklearn.neural_network._stochastic_optimizers",
        "sklearn.tree._tree",
        "sklearn.utils._bunch",
        "sklearn.utils._metadata_requests",
    }
)
"""Modules whose own classes and functions fitted estimators keep: kernels, losses, trees, tests of features."""

_ONLY_FOR_FITTING = (
    "scipy.stats.",  # loading one of its distributions executes text
    "sklearn.metrics._classification",
    "sklearn.metrics._ranking",
    "sklearn.metrics._regression",
    "sklearn.metrics._scorer",  # calls a method of any name
    "sklearn.model_selection._split",
)

_RENAMED = {  # by Python 3 and NumPy 2
    "__builtin__": "builtins",
    "copy_reg": "copyreg",
    "numpy.core.multiarray": "numpy._core.multiarray",
    "numpy.core.numeric": "numpy._core.numeric",
}
_WRITTEN_BY = re.compile(
    rb"_sklearn_version(?:\x94|q.|r....|\np\d+\n)?(?:\x8c.|X....|V)(\d+\.\d+(?:\.\d+)?(?:(?:rc|dev|a|b)\d+)?)",
    re.DOTALL,
)


class NotAllowed(Exception):
    """A file that asks for what no scikit-learn classifier needs; the message says for what."""


def unpacked(path: Path) -> bytes:
    """Return the content of a file, decompressed if need be.

    Raises NotAllowed if that is too large, and OSError, EOFError, zlib.error or lzma.LZMAError if it cannot be read.
    """
    with path.open("rb") as file:
        begin = file.peek(8)
        opener = next((opener for prefix, opener in _COMPRESSED.items() if begin.startswith(prefix)), None)
        stream = file if opener is None else opener(file)
        content = stream.read(UNPACKED_BYTES + 1)
    if len(content) > UNPACKED_BYTES:
        raise NotAllowed(f"holds more than {UNPACKED_BYTES // 1024**2} MiB, unpacked")
    return content


def unpickle(content: bytes) -> Any:
    """Return what pickle or joblib wrote.

    Raises NotAllowed before the first opcode or name outside the lists, and whatever allowed classes raise.
    """
    return _Unpickler(io.BytesIO(content)).load()


def written_by(content: bytes) -> str | None:
    """Return the version of scikit-learn that wrote a pickle, None if it does not say."""
    found = _WRITTEN_BY.search(content)
    return None if found is None else found[1].decode()


class _OmittedType(type):
    """Type of `_Omitted`, so that pickle can be told how to write that class."""


class _Omitted(metaclass=_OmittedType):
    """Stands for what a search draws from and measures with, which no fitted model needs; written as ()."""

    def __init__(self, *arguments: object, **named: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...

    def __reduce__(self) -> Any:
        return tuple, ()


copyreg.pickle(_OmittedType, lambda _: (tuple, ()))  # type: ignore[arg-type, return-value]  # as nothing of its type


class _Array(NumpyArrayWrapper):  # type: ignore[misc]  # joblib ships no types
    """An array that joblib wrote between the opcodes."""

    def read_array(self, unpickler: "_Unpickler", ensure_native_byte_order: bool) -> Any:
        """Read its bytes, or its objects, which are a pickle of their own."""
        if self.dtype.hasobject:
            return _Unpickler(unpickler.file_handle).load()
        return super().read_array(unpickler, ensure_native_byte_order)


class _Unpickler(NumpyUnpickler):  # type: ignore[misc]  # joblib ships no types
    """joblib's reader, restricted to opcodes and names that a classifier needs."""

    dispatch: ClassVar[dict[int, Callable[["_Unpickler"], None]]] = dict(NumpyUnpickler.dispatch)

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__("", file, ensure_native_byte_order=True)

    def find_class(self, module: str, name: str) -> Any:
        """Return what a pickle names; raises NotAllowed."""
        module = _RENAMED.get(module, module)
        if (module, name) == ("joblib.numpy_pickle", "NumpyArrayWrapper"):
            return _Array
        if (module, name) == ("_codecs", "encode"):  # how protocols before 3 write bytes
            return _latin_1
        if module.startswith(_ONLY_FOR_FITTING):
            return _Omitted
        if (module, name) in _ALLOWED:
            return getattr(importlib.import_module(module), name)
        if module.partition(".")[0] in {"sklearn", "scipy"} and ".tests" not in module and name.isidentifier():
            found = getattr(importlib.import_module(module), name)
            if _is_of_an_estimator(found, module):
                return found
        raise NotAllowed(f"names {module}.{name}, which is no estimator of scikit-learn nor a part of one")

    def load_build(self) -> None:
        """Set the state of an object, never of a class or function."""
        if isinstance(self.stack[-2], (type, FunctionType, BuiltinFunctionType)):
            raise NotAllowed("changes a class or a function")
        super().load_build()


def _is_of_an_estimator(found: object, module: str) -> bool:
    if isinstance(found, type) and issubclass(found, (BaseEstimator, scipy.sparse.spmatrix, scipy.sparse.sparray)):
        return True
    return module in _PARTS_OF_ESTIMATORS and callable(found) and getattr(found, "__module__", None) == module


def _latin_1(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise NotAllowed(f"encodes text as {encoding}")
    return text.encode("latin-1")


def _refuse(opcode: str, unpickler: _Unpickler) -> None:
    del unpickler
    raise NotAllowed(f"contains the opcode {opcode}, which no model needs")


_Unpickler.dispatch[pickle.BUILD[0]] = _Unpickler.load_build
for _opcode in pickletools.opcodes:
    if _opcode.name not in _OPCODES.split():
        _Unpickler.dispatch[ord(_opcode.code)] = functools.partial(_refuse, _opcode.name)

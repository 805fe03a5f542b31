"""Sessions of SavedModels through TensorFlow's C API, for many threads. Imports no TensorFlow."""

import ctypes
import itertools
import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from serving_c_api import BOOL, FLOAT, INT32, STRING, TSTRING, Output, strings_out

INT64 = 9
KINDS = {np.dtype("float32"): FLOAT, np.dtype("int32"): INT32, np.dtype("int64"): INT64, np.dtype("bool"): BOOL}
ARRAYS = {kind: dtype for dtype, kind in KINDS.items()}
TENSORS = "tensors.json"
"""In assets.extra of a version: the tensors of each signature's inputs and outputs."""


class Strings(NamedTuple):
    """A string tensor."""

    shape: Sequence[int]
    values: Sequence[bytes]


class Answer(NamedTuple):
    """An error's code and text, or the outputs: arrays, or Strings; and how long the model took."""

    code: int
    message: str
    outputs: dict[str, Any]
    seconds: float


class Session:
    """A loaded version.

    Args:
      library: of `serving_c_api.api`.
      version: the SavedModel's folder.
    """

    def __init__(self, library: Any, version: Path):
        self.library, self.version = library, version
        self.graph = ctypes.c_void_p(library.TF_NewGraph())
        options, status = ctypes.c_void_p(library.TF_NewSessionOptions()), ctypes.c_void_p(library.TF_NewStatus())
        tags = (ctypes.c_char_p * 1)(b"serve")
        self.session = ctypes.c_void_p(
            library.TF_LoadSessionFromSavedModel(options, None, bytes(version), tags, 1, self.graph, None, status)
        )
        assert library.TF_GetCode(status) == 0, library.TF_Message(status)
        library.TF_DeleteSessionOptions(options)
        library.TF_DeleteStatus(status)
        names = json.loads((version / "assets.extra" / TENSORS).read_text())
        self.signatures = {
            name: {side: {key: self._output(tensor) for key, tensor in found[side].items()} for side in found}
            for name, found in names.items()
        }

    def _output(self, name: str) -> Output:
        operation, index = name.split(":")
        return Output(self.library.TF_GraphOperationByName(self.graph, operation.encode()), int(index))

    def run(self, signature: str, inputs: Mapping[str, Strings | np.ndarray]) -> Answer:
        """Asks a signature. The inputs may be any: too few, or of other types and shapes."""
        library, tensors = self.library, self.signatures[signature]
        names = list(tensors["outputs"])
        status = ctypes.c_void_p(library.TF_NewStatus())
        made = [_tensor(library, value) for value in inputs.values()]  # holds the strings until the run has ended
        given = (Output * len(made))(*(tensors["inputs"][name] for name in inputs))
        values = (ctypes.c_void_p * len(made))(*(tensor for tensor, _ in made))
        asked = (Output * len(names))(*tensors["outputs"].values())
        results = (ctypes.c_void_p * len(names))()
        started = time.monotonic()
        library.TF_SessionRun(
            *(self.session, None, given, values, len(made), asked, results, len(names)), *(None, 0, None, status)
        )
        seconds = time.monotonic() - started
        code, message = library.TF_GetCode(status), library.TF_Message(status).decode(errors="replace")
        library.TF_DeleteStatus(status)
        outputs = {} if code else {name: _array(library, value) for name, value in zip(names, results, strict=True)}
        for tensor in itertools.chain(values, results):
            if tensor:
                library.TF_DeleteTensor(ctypes.c_void_p(tensor))
        return Answer(code, message, outputs, seconds)

    def close(self) -> None:
        status = ctypes.c_void_p(self.library.TF_NewStatus())
        for end in (self.library.TF_CloseSession, self.library.TF_DeleteSession):
            end(self.session, status)
            assert self.library.TF_GetCode(status) == 0, self.library.TF_Message(status)
        self.library.TF_DeleteStatus(status)
        self.library.TF_DeleteGraph(self.graph)


def _tensor(library: Any, value: Strings | np.ndarray) -> tuple[int, Any]:
    """A tensor, and what must live as long: its strings are views."""
    kept, kind = None, STRING
    if isinstance(value, Strings):
        kept = b"".join(value.values) + b"\0"
        lengths = np.fromiter(map(len, value.values), np.uint64, len(value.values))
        address = ctypes.cast(ctypes.c_char_p(kept), ctypes.c_void_p).value
        starts = np.cumsum(lengths, dtype=np.uint64) - lengths + np.uint64(address)
        content = np.stack([lengths * np.uint64(4) + np.uint64(3), starts, np.zeros_like(starts)], axis=1)
        assert content.nbytes == TSTRING * math.prod(value.shape)
    else:
        content, kind = np.ascontiguousarray(value), KINDS[value.dtype]
    dims = (ctypes.c_int64 * len(value.shape))(*value.shape)
    tensor = library.TF_AllocateTensor(kind, dims, len(value.shape), ctypes.c_size_t(content.nbytes))
    ctypes.memmove(library.TF_TensorData(ctypes.c_void_p(tensor)), content.ctypes.data, content.nbytes)
    return tensor, kept


def _array(library: Any, tensor: int) -> np.ndarray | Strings:
    result = ctypes.c_void_p(tensor)
    shape = [library.TF_Dim(result, i) for i in range(library.TF_NumDims(result))]
    address, kind, count = library.TF_TensorData(result), library.TF_TensorType(result), math.prod(shape)
    if kind == STRING:
        return Strings(shape, _strings(address, count))
    dtype = ARRAYS[kind]
    content = ctypes.string_at(address, dtype.itemsize * count) if count else b""
    return np.frombuffer(content, dtype).reshape(shape)


def _strings(address: int, count: int) -> list[bytes]:
    """As `serving_c_api.strings_out`, and faster: most are small, so that they lie in the TF_TString."""
    raw = ctypes.string_at(address, TSTRING * count) if count else b""
    return [
        strings_out(address + at, 1)[0] if raw[at] & 3 else raw[at + 1 : at + 1 + (raw[at] >> 2)]
        for at in range(0, len(raw), TSTRING)
    ]

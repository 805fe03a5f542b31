"""Answers requests through TensorFlow's C API alone: run as a script, it imports neither TensorFlow nor this project.

Arguments: folder of TensorFlow's shared libraries, SavedModel, JSON file of requests, JSON file for the answers. A
request names its input and output tensors (`operation:index`) and gives the shape and the values of each input: strings
in hex, or truth values.
"""

import ctypes
import json
import struct
import sys

FLOAT, INT32, STRING, BOOL = 1, 3, 7, 10  # TF_DataType
TSTRING = 24  # bytes of a TF_TString


class Output(ctypes.Structure):
    _fields_ = (("operation", ctypes.c_void_p), ("index", ctypes.c_int))


def api(folder):
    ctypes.CDLL(f"{folder}/libtensorflow_framework.so.2", mode=ctypes.RTLD_GLOBAL)
    library = ctypes.CDLL(f"{folder}/libtensorflow_cc.so.2", mode=ctypes.RTLD_GLOBAL)
    for name in ("NewStatus", "NewGraph", "NewSessionOptions", "LoadSessionFromSavedModel", "GraphOperationByName"):
        getattr(library, f"TF_{name}").restype = ctypes.c_void_p
    for name in ("AllocateTensor", "TensorData"):
        getattr(library, f"TF_{name}").restype = ctypes.c_void_p
    library.TF_Message.restype = ctypes.c_char_p
    library.TF_Dim.restype = ctypes.c_int64
    return library


def strings_in(library, shape, values):
    """A TF_STRING tensor; each TF_TString is written as its layout says: a view, size·4 + 3 and a pointer."""
    dims = (ctypes.c_int64 * len(shape))(*shape)
    tensor = library.TF_AllocateTensor(STRING, dims, len(shape), ctypes.c_size_t(TSTRING * len(values)))
    data = library.TF_TensorData(ctypes.c_void_p(tensor))
    kept = [ctypes.create_string_buffer(value, len(value) + 1) for value in values]
    for i, (value, buffer) in enumerate(zip(values, kept, strict=True)):
        ctypes.memmove(
            data + TSTRING * i, struct.pack("<QQQ", len(value) << 2 | 3, ctypes.addressof(buffer), 0), TSTRING
        )
    return tensor, kept


def bools_in(library, shape, values):
    """A TF_BOOL tensor."""
    dims = (ctypes.c_int64 * len(shape))(*shape)
    tensor = library.TF_AllocateTensor(BOOL, dims, len(shape), ctypes.c_size_t(len(values)))
    ctypes.memmove(library.TF_TensorData(ctypes.c_void_p(tensor)), bytes(values), len(values))
    return tensor, None


def strings_out(address, count):
    """The strings of a tensor: small ones lie in the TF_TString itself, the others behind its pointer."""
    strings = []
    for i in range(count):
        raw = ctypes.string_at(address + TSTRING * i, TSTRING)
        kind = raw[0] & 3
        if kind == 0:
            strings.append(raw[1 : 1 + (raw[0] >> 2)])
        else:
            size, second, third = struct.unpack("<QQQ", raw)
            assert kind in (1, 3), f"TF_TString of kind {kind}"
            strings.append(ctypes.string_at(third if kind == 1 else second, size >> 2))
    return strings


def main(folder, model, requests, answers):
    library = api(folder)
    status = ctypes.c_void_p(library.TF_NewStatus())

    def check():
        assert library.TF_GetCode(status) == 0, library.TF_Message(status)

    graph = ctypes.c_void_p(library.TF_NewGraph())
    options = ctypes.c_void_p(library.TF_NewSessionOptions())
    tags = (ctypes.c_char_p * 1)(b"serve")
    session = ctypes.c_void_p(
        library.TF_LoadSessionFromSavedModel(options, None, model.encode(), tags, 1, graph, None, status)
    )
    check()

    def output(name):
        operation, index = name.split(":")
        pointer = library.TF_GraphOperationByName(graph, operation.encode())
        assert pointer, name
        return Output(pointer, int(index))

    with open(requests) as f:
        asked = json.load(f)
    answered = []
    for request in asked:
        names, given = list(request["outputs"]), request["inputs"]
        made = []
        for value in given:
            if "strings" in value:
                made.append(strings_in(library, value["shape"], [bytes.fromhex(text) for text in value["strings"]]))
            else:
                made.append(bools_in(library, value["shape"], value["bools"]))
        inputs = (Output * len(given))(*(output(value["tensor"]) for value in given))
        tensors = (ctypes.c_void_p * len(given))(*(tensor for tensor, _ in made))
        outputs = (Output * len(names))(*(output(request["outputs"][name]) for name in names))
        results = (ctypes.c_void_p * len(names))()
        library.TF_SessionRun(
            *(session, None, inputs, tensors, len(given), outputs, results, len(names)),
            *(None, 0, None, status),
        )
        check()
        del made
        answer = {}
        for name, result in zip(names, results, strict=True):
            result = ctypes.c_void_p(result)
            shape = [library.TF_Dim(result, i) for i in range(library.TF_NumDims(result))]
            count = 1
            for size in shape:
                count *= size
            address, kind = library.TF_TensorData(result), library.TF_TensorType(result)
            if kind == STRING:
                values = [value.hex() for value in strings_out(address, count)]
            else:
                assert kind in (FLOAT, INT32), kind
                values = ctypes.string_at(address, 4 * count).hex() if count else ""
            answer[name] = {"shape": shape, "values": values}
        answered.append(answer)
    assert not any(name.split(".")[0] in ("tensorflow", "keras", "vae_cf_tf", "export") for name in sys.modules)
    with open(answers, "w") as f:
        json.dump(answered, f)


if __name__ == "__main__":
    main(*sys.argv[1:])

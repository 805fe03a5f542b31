"""tf.train.Example and the messages of TF Serving's Predict, built from their fields without importing TensorFlow.

The classes of tensorflow-serving-api import all of TensorFlow, which takes seconds. Only the fields that a client needs
are listed. Their numbers and types are those of tensorflow/core/example/{example,feature}.proto,
tensorflow/core/framework/{tensor,tensor_shape}.proto and tensorflow_serving/apis/{model,predict}.proto.
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_MESSAGES = {
    "BytesList": {1: "repeated bytes value"},
    "FloatList": {1: "repeated float value"},
    "Int64List": {1: "repeated int64 value"},
    "Feature": {1: "BytesList bytes_list", 2: "FloatList float_list", 3: "Int64List int64_list"},
    "Features": {1: "map Feature feature"},
    "Example": {1: "Features features"},
    "Dim": {1: "int64 size"},
    "TensorShapeProto": {2: "repeated Dim dim"},
    "TensorProto": {
        1: "int32 dtype",  # an enum, which has the same encoding
        2: "TensorShapeProto tensor_shape",
        4: "bytes tensor_content",
        5: "repeated float float_val",
        8: "repeated bytes string_val",
        11: "repeated bool bool_val",
    },
    "Int64Value": {1: "int64 value"},
    "ModelSpec": {1: "string name", 2: "Int64Value version", 3: "string signature_name"},
    "PredictRequest": {1: "ModelSpec model_spec", 2: "map TensorProto inputs"},
    "PredictResponse": {1: "map TensorProto outputs"},
}
DT_FLOAT, DT_STRING, DT_BOOL = 1, 7, 10


def _classes() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="export/protos.proto", package="export", syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, text in fields.items():
            *label, kind, field = text.split()
            if label == ["map"]:  # protobuf's form of a map: a repeated message of a key and a value
                entry = message.nested_type.add(name=f"{field.title()}Entry", options={"map_entry": True})
                _add(entry, 1, "string", "key")
                _add(entry, 2, kind, "value")
                kind = f"{name}.{entry.name}"
            _add(message, number, kind, field, repeated=bool(label))
    pool = descriptor_pool.DescriptorPool()  # of our own: the same messages are TensorFlow's in the default pool
    pool.Add(file)
    return {n: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"export.{n}")) for n in _MESSAGES}


def _add(message: Any, number: int, kind: str, name: str, repeated: bool = False) -> None:
    field = message.field.add(name=name, number=number)
    field.label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
    if kind[0].isupper():
        field.type, field.type_name = field.TYPE_MESSAGE, f".export.{kind}"
    else:
        field.type = getattr(field, f"TYPE_{kind.upper()}")


_made = _classes()
Example, PredictRequest, PredictResponse = _made["Example"], _made["PredictRequest"], _made["PredictResponse"]

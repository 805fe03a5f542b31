"""The C++ loader that TF Serving runs: reached through the C API, it answers as tf.saved_model.load does."""

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from serving_kit import ITEM_IDS, elsewhere, exported
from tensorflow.core.protobuf import saved_model_pb2

from vae_cf_tf.registries import SIGNATURES

HERE = Path(__file__).parent
ROWS = [
    ["i3", "i7", "été"],
    ["i9", "映画 7", "an id of more than twenty-two bytes, which a TF_TString keeps outside"],
    [],
]
# Standard kernels of tensorflow/core, all linked into TF Serving; none is custom and none runs Python.
ALLOWED = {
    name
    for line in (
        "LogicalAnd Mean SquaredDifference StopGradient TensorListFromTensor TensorListGetItem",
        "AddV2 AssignVariableOp BiasAdd Bincount Cast ConcatV2 Const Cumsum DenseBincount DisableCopyOnRead Fill",
        "Gather GatherNd GatherV2 Greater GreaterEqual HashTableV2 Identity IdentityN InitializeTableFromTextFileV2",
        "Less LogSoftmax LookupTableFindV2 MatMul Max Maximum MergeV2Checkpoints Min Minimum Mul Neg NoOp NotEqual",
        "Pack Pad ParseExampleV2 PartitionedCall Placeholder Prod RaggedTensorToTensor Range ReadVariableOp Reshape",
        "RestoreV2 Rsqrt SaveV2 SegmentSum Select SelectV2 Shape ShardedFilename Sigmoid Size Slice Softplus",
        "SparseSegmentSumWithNumSegments Split StatefulPartitionedCall StatelessWhile StaticRegexFullMatch",
        "StridedSlice StringJoin Sub Sum Tanh TensorListReserve TensorListSetItem TensorListStack TensorScatterUpdate",
        "BroadcastTo ExpandDims FloorDiv FloorMod Squeeze Tile",
        "All Any Assert Cumprod DecodePaddedRaw Equal LogicalOr StringLength",
        "EnsureShape Exp If LessEqual Log LogicalNot PadV2 StatelessIf Unique UnsortedSegmentSum",
        "OnesLike RaggedGather RaggedRange RealDiv ScatterNd",
        "TensorScatterAdd TopKV2 Transpose Unpack VarHandleOp VarIsInitializedOp Where While",
    )
    for name in line.split()
}


def meta_graph(version: Path):
    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString((version / "saved_model.pb").read_bytes())
    return saved.meta_graphs[0]


MODELS = [("float32", ""), ("bfloat16", ""), ("float32", "whole"), ("bfloat16", "rows")]


@pytest.mark.parametrize(("weights", "item_item"), MODELS)
def test_no_operation_outside_the_standard_kernels(weights, item_item):
    graph = meta_graph(exported(weights, item_item)).graph_def
    operations = {node.op for node in graph.node} | {n.op for f in graph.library.function for n in f.node_def}
    assert "MatMul" in operations
    assert operations <= ALLOWED, operations - ALLOWED


def sent(tensor: str, value: tf.Tensor) -> dict:
    """An input as serving_c_api.py takes it."""
    flat = value.numpy().ravel().tolist()
    values = {"strings": [item.hex() for item in flat]} if value.dtype == tf.string else {"bools": flat}
    return {"tensor": tensor, "shape": value.shape.as_list()} | values


@pytest.mark.parametrize(("weights", "item_item"), MODELS)
def test_every_signature_answers_through_the_c_api_as_through_python(weights, item_item, tmp_path):
    version = exported(weights, item_item)
    loaded = tf.saved_model.load(str(version))
    requests, expected = [], []
    for name, signature in sorted(meta_graph(version).signature_def.items()):
        if name == "__saved_model_init_op":
            continue
        for rows in (ROWS, ROWS[:1]):
            whole = {key: tf.constant(value) for key, value in SIGNATURES[name].example(rows).items()}
            for given in (whole, {key: value[:0] for key, value in whole.items()}):
                requests.append(
                    {
                        "inputs": [sent(signature.inputs[key].name, value) for key, value in given.items()],
                        "outputs": {k: v.name for k, v in signature.outputs.items()},
                    }
                )
                expected.append({k: v.numpy() for k, v in loaded.signatures[name](**given).items()})
    assert len(requests) == 4 * len(loaded.signatures)
    (tmp_path / "requests.json").write_text(json.dumps(requests))
    script = f"import runpy, sys\nsys.argv[0] = {str(HERE / 'serving_c_api.py')!r}\n"
    script += "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    folder = Path(tf.__file__).parent
    done = elsewhere(script, folder, version, tmp_path / "requests.json", tmp_path / "answers.json")
    assert done.returncode == 0, done.stderr[-2000:]
    answers = json.loads((tmp_path / "answers.json").read_text())
    for answer, wanted in zip(answers, expected, strict=True):
        assert set(answer) == set(wanted)
        for key, value in wanted.items():
            assert answer[key]["shape"] == list(value.shape)
            if value.dtype == object:
                assert [bytes.fromhex(text) for text in answer[key]["values"]] == value.ravel().tolist()
            else:
                np.testing.assert_allclose(
                    np.frombuffer(bytes.fromhex(answer[key]["values"]), value.dtype).reshape(value.shape),
                    value,
                    atol=1e-6,
                    rtol=0,
                )
    assert any(len(ITEM_IDS) in answer["scores"]["shape"] for answer in answers if "scores" in answer)

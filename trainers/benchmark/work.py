"""What a training step has to do, and the least time that it can take on this machine: its floor.

The floor is the sum of two times:

- The dense matrix products of the step, forward and gradient. Each is measured alone at its own shape and number
  format, and the best of many calls counts.
- The memory traffic, at the measured bandwidth: variables and moments that are updated, the rows that sums over bags of
  items read and write, and tensors of `IN_CACHE` bytes or more that a product reads or writes and other operations
  make or use, such as the decoder's output and its gradient.

All else counts as nothing: small tensors, arithmetic that is no product, random numbers, sorting, the start of an
operation.

`work_of` counts the work by running the step once, operation by operation. It uses no names and no widths of layers. It
also sees what a graph does not show: which branch of a condition is taken, how often a loop runs, how many candidates a
sampled softmax has.
"""

import math
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow.python.framework import op_callbacks  # of TensorFlow's own debugger; no public module has it

IN_CACHE = 4 << 20
"""Bytes from which on a tensor counts as memory traffic. A smaller one may stay in the processor's caches."""

PRODUCTS = "matrix products"
UPDATES = "variables updated, or gathered by row"
SUMS = "sums over bags of items"
PASSED = "tensors that products and other operations pass on"

_FACTORS: dict[str, tuple[str, ...]] = {
    "MatMul": ("a", "b"),
    **dict.fromkeys(("BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"), ("x", "y")),
}
_FACTORS["Einsum"] = ("inputs",)
_ARGUMENTS = ("transpose_a", "transpose_b", "adj_x", "adj_y", "equation")


class MatrixProduct(NamedTuple):
    """A dense product of two tensors: a TensorFlow operation with the shapes and arguments that it was called with."""

    operation: str
    shapes: tuple[tuple[int, ...], ...]  # of the factors, as they lie in memory
    output: tuple[int, ...]
    dtype: tf.DType
    arguments: tuple[tuple[str, Any], ...]

    @property
    def operations(self) -> float:
        """Floating-point operations: a multiplication and an addition for each element of the output and each term."""
        return 2.0 * math.prod(self.output) * self._terms()

    def _terms(self) -> int:
        """How many terms are added up for an element of the output."""
        arguments, first = dict(self.arguments), self.shapes[0]
        if self.operation != "Einsum":
            return first[-2 if arguments.get("transpose_a") or arguments.get("adj_x") else -1]
        factors, _, output = arguments["equation"].partition("->")
        sizes: dict[str, int] = {}
        for labels, shape in zip(factors.split(","), self.shapes, strict=True):
            head, _, tail = labels.partition("...")
            sizes.update(zip(head, shape, strict=False))
            sizes.update(zip(reversed(tail), reversed(shape), strict=False))
        return math.prod(size for label, size in sizes.items() if label not in output)

    def call(self) -> Callable[[], Any]:
        """A function that multiplies random factors of these shapes."""
        factors = [tf.cast(tf.random.uniform(shape), self.dtype) for shape in self.shapes]
        names = _FACTORS[self.operation]
        inputs = dict(zip(names, [factors] if len(names) == 1 else factors, strict=True))
        operation, arguments = getattr(tf.raw_ops, self.operation), dict(self.arguments)
        return lambda: operation(**inputs, **arguments)

    def __str__(self) -> str:
        shapes = " × ".join(str(list(shape)) for shape in self.shapes)
        arguments = ", ".join(f"{k}={v}" if isinstance(v, str) else k for k, v in self.arguments if v)
        return f"{self.dtype.name} {shapes}" + (f" ({arguments})" if arguments else "")


SMALLEST = MatrixProduct("MatMul", ((1, 1), (1, 1)), (1, 1), tf.float32, ())
"""Its time is the cost of a call, which is subtracted from that of other products."""


class Work(NamedTuple):
    """What a step has to do."""

    products: Counter[MatrixProduct]  # how often each occurs
    bytes: dict[str, float]  # through memory at least, by what they are for

    @property
    def operations(self) -> float:
        return sum(times * product.operations for product, times in self.products.items())


def work_of(step: Callable[[], Any]) -> Work:
    """Counts the work of `step`, a Python function of TensorFlow operations, by running it once without graphs."""
    recorder, eager = _Recorder(), tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    op_callbacks.add_op_callback(recorder.record)
    try:
        step()
    finally:
        op_callbacks.remove_op_callback(recorder.record)
        tf.config.run_functions_eagerly(eager)
    return Work(recorder.products, dict(recorder.bytes))


class _Recorder:
    """Receives the operations of a step in the order in which they run."""

    def __init__(self) -> None:
        self.products: Counter[MatrixProduct] = Counter()
        self.bytes: dict[str, float] = dict.fromkeys((UPDATES, SUMS, PASSED), 0.0)
        # Tensors by id; they are kept alive, so that no other tensor receives the id.
        self.from_variables: dict[int, tf.Tensor] = {}
        self.from_products: dict[int, tf.Tensor] = {}
        self.to_products: dict[int, tf.Tensor] = {}  # made by other operations

    def record(self, name: Any, inputs: Any, attributes: Any, outputs: Any, op_name: Any = None, graph: Any = None):
        """A callback of `op_callbacks`."""
        if graph is not None:
            return  # Keras traces layers to learn shapes; nothing of that runs
        name = name.decode() if isinstance(name, bytes) else name
        if name in _FACTORS and len(inputs) == 2:
            self._multiplied(name, inputs, dict(zip(attributes[::2], attributes[1::2], strict=True)), outputs[0])
        elif name == "ReadVariableOp":
            self.from_variables[id(outputs[0])] = outputs[0]
        elif name in ("Identity", "Reshape", "StopGradient"):  # the same numbers in memory
            for tensors in (self.from_variables, self.from_products, self.to_products):
                if id(inputs[0]) in tensors:
                    tensors[id(outputs[0])] = outputs[0]
        elif name.startswith("ResourceApply") or name in ("AssignAddVariableOp", "AssignSubVariableOp"):
            self._updated(inputs)
        elif name == "ResourceGather":
            self.bytes[UPDATES] += _bytes(outputs[0])
        elif name.startswith("ResourceScatter"):
            self.bytes[UPDATES] += (1 if name == "ResourceScatterUpdate" else 2) * _bytes(inputs[-1])
        elif name.startswith("SparseSegmentSum") and outputs[0].shape.rank > 1:
            row = _bytes(inputs[0]) / max(inputs[0].shape[0], 1)
            self.bytes[SUMS] += np.unique(inputs[1].numpy()).size * row + _bytes(outputs[0])

    def _multiplied(self, name: str, inputs: Any, attributes: dict[str, Any], output: tf.Tensor) -> None:
        arguments = {key: attributes[key] for key in _ARGUMENTS if key in attributes}
        if isinstance(arguments.get("equation"), bytes):
            arguments["equation"] = arguments["equation"].decode()
        shapes = tuple(tuple(factor.shape) for factor in inputs)
        product = MatrixProduct(name, shapes, tuple(output.shape), output.dtype, tuple(arguments.items()))
        self.products[product] += 1
        for factor in inputs:
            known = (self.from_variables, self.from_products, self.to_products)
            if not any(id(factor) in tensors for tensors in known):
                self.to_products[id(factor)] = factor
                self.bytes[PASSED] += _bytes_through_memory(factor)
        self.from_products[id(output)] = output
        self.bytes[PASSED] += _bytes_through_memory(output)

    def _updated(self, inputs: Any) -> None:
        """A variable and its moments are read and written, the gradient is read."""
        handles = sum(tensor.dtype == tf.resource for tensor in inputs)
        gradient = max((tensor for tensor in inputs if tensor.dtype != tf.resource), key=_bytes)
        self.bytes[UPDATES] += (2 * handles + 1) * _bytes(gradient)
        if id(gradient) in self.from_products:  # UPDATES has this read already: count it once
            self.bytes[PASSED] -= _bytes_through_memory(gradient)


def _bytes(tensor: tf.Tensor) -> float:
    return float(math.prod(tensor.shape) * tensor.dtype.size)


def _bytes_through_memory(tensor: tf.Tensor) -> float:
    return _bytes(tensor) if _bytes(tensor) >= IN_CACHE else 0.0

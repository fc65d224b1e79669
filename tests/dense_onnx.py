"""ONNX models of one dense layer, small and sealed."""

import json

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from export import seal

SOFTMAX = helper.make_node("Softmax", ["logits"], ["y"])


def write_dense(path, nodes=(SOFTMAX,), batch="batch", classes=10, weights=None):
    """Write a model of our input whose nodes make `y` of the `logits`; weights (1024, classes)."""
    values = np.zeros((1024, classes)) if weights is None else weights
    constants = {"shape": np.array([-1, 1024]), "weights": values.astype(np.float32)}
    given = {"image": [batch, 32, 32, 1], "y": [batch, classes]}
    ins, outs = (
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, given[n])] for n in ("image", "y")
    )
    flat = helper.make_node("Reshape", ["image", "shape"], ["flat"])
    logits = helper.make_node("MatMul", ["flat", "weights"], ["logits"])
    kept = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph([flat, logits, *nodes], "dense", ins, outs, kept)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"seal": json.dumps({seal.KEY: seal.DIGITS})})
    path.write_bytes(seal.seal(model.SerializeToString()))
    return path

"""The artifacts keep the contract of the design, whatever the model."""

import json

import numpy as np
import onnx
import pytest
from helpers import ROOT, run_stage
from hypothesis import given
from hypothesis import strategies as st

from export import logits, to_onnx, to_tflite
from export.quiet import quiet


def tensors(path):
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    names = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}
    operators = [
        names[model.operatorCodes[op.opcodeIndex].builtinCode]
        for op in model.subgraphs[0].operators
    ]
    return model.subgraphs[0], operators


LAYERS = ["CONV_2D", "MAX_POOL_2D", "CONV_2D", "MAX_POOL_2D", "RESHAPE"]
LAYERS += ["FULLY_CONNECTED"] * 3 + ["SOFTMAX"]


@pytest.mark.parametrize(
    ("name", "dtype"), [("lenet5_fp32.tflite", "float32"), ("lenet5_int8.tflite", "int8")]
)
def test_tflite_has_the_layers_of_lenet5_alone_a_static_batch_and_the_contracts_names(
    exported, name, dtype
):
    assert tensors(exported / name)[1] == LAYERS  # no shape arithmetic among them
    described = to_tflite.describe(exported / name)
    assert described["input"]["name"] == "image"
    assert described["input"]["shape"] == [1, 32, 32, 1]
    assert described["input"]["dtype"] == described["output"]["dtype"] == dtype
    assert described["output"]["shape"] == [1, 10]


def test_int8_input_is_the_raw_pixel_minus_128(exported):
    described = to_tflite.describe(exported / "lenet5_int8.tflite")
    assert described["input"]["scale"] == pytest.approx(1 / 255, rel=1e-6)
    assert described["input"]["zero_point"] == -128


def test_int8_weights_have_a_scale_for_each_output_channel(exported):
    graph, operators = tensors(exported / "lenet5_int8.tflite")
    weights = [
        graph.tensors[op.inputs[1]]
        for op, name in zip(graph.operators, operators, strict=True)
        if name in ("CONV_2D", "FULLY_CONNECTED")
    ]
    assert [len(w.quantization.scale) for w in weights] == [6, 16, 120, 84, 10]


@pytest.mark.parametrize("name", ["lenet5_fp32.onnx", "lenet5_int8.onnx"])
def test_onnx_passes_the_full_check_and_is_old_enough_for_onnxruntime_1_16(exported, name):
    model = onnx.load(exported / name)
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version <= 9
    # onnxruntime 1.16 knows the default domain up to 19 and refuses newer sets of any domain.
    assert {o.domain: o.version for o in model.opset_import} == {"": to_onnx.OPSET}
    assert to_onnx.OPSET <= 19
    assert to_onnx.describe(exported / name) == {
        "input": {"name": "image", "shape": ["batch", 32, 32, 1], "dtype": "float32"},
        "output": {"name": "probabilities", "shape": ["batch", 10], "dtype": "float32"},
    }


def test_onnx_computes_no_shape_at_run_time(exported):
    operators = {node.op_type for node in onnx.load(exported / "lenet5_fp32.onnx").graph.node}
    assert not operators & {"Shape", "Gather", "Cast", "Slice", "Concat", "Unsqueeze"}


def test_onnx_int8_holds_int8_weights_by_channel(exported):
    graph = onnx.load(exported / "lenet5_int8.onnx").graph
    weights = [t for t in graph.initializer if len(t.dims) > 1]
    assert len(weights) == 5
    assert all(t.data_type == onnx.TensorProto.UINT8 for t in weights)
    scales = {t.name: list(t.dims) for t in graph.initializer if t.name.endswith("_scale")}
    assert sorted(d[0] for d in scales.values() if d).count(6) >= 1
    assert (exported / "lenet5_int8.onnx").stat().st_size < 90_000


@pytest.mark.parametrize(
    "name",
    ["lenet5_fp32.tflite", "lenet5_int8.tflite", "lenet5_fp32.onnx", "lenet5_int8.onnx"],
)
def test_every_artifact_says_what_it_is(exported, name):
    if name.endswith(".tflite"):
        metadata = to_tflite.read_metadata(exported / name)
        labels = metadata["labels"]
    else:
        metadata = {p.key: p.value for p in onnx.load(exported / name).metadata_props}
        labels = json.loads(metadata["labels"])
    assert metadata["name"] == "lenet5-edge"
    assert metadata["license"] == "MIT"
    assert labels == list("0123456789")
    assert "divide by 255" in metadata["preprocessing"]
    assert metadata["version"]


def test_export_is_reproducible(exported, small_data, tmp_path):
    for name in ("lenet5.keras", "train.json"):
        (tmp_path / name).write_bytes((exported / name).read_bytes())
    run = run_stage("export", "--data", small_data, "--out", tmp_path, cwd=ROOT)
    assert run.returncode == 0, run.stderr
    for path in exported.glob("lenet5_*"):
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.mark.parametrize(
    ("low", "high", "scale", "zero_point"),
    [(0.0, 255.0, 1.0, -128), (-128.0, 127.0, 1.0, 0), (-1.0, 1.0, 2 / 255, 0)],
)
def test_quantization_parameters_of_hand_computed_ranges(low, high, scale, zero_point):
    assert logits.quantization_parameters(low, high) == (pytest.approx(scale), zero_point)


@given(st.integers(0, 2**32 - 1))
def test_logit_range_never_cuts_off_the_second_largest_logit(seed):
    rng = np.random.default_rng(seed)
    values = rng.normal(0, rng.uniform(0.5, 20), (50, 10)).astype(np.float32)
    low, high = logits.choose_range(values)
    assert values.min() - 1e-4 <= low < high <= values.max() + 1e-4
    assert high >= np.sort(values, axis=1)[:, -2].max() - 1e-4


def test_logit_range_leaves_out_what_has_no_probability_anyhow():
    values = np.random.default_rng(0).normal(0, 3, (50, 10)).astype(np.float32)
    values[7, 3] = -1000.0
    low, high = logits.choose_range(values)
    assert -100 < low < high


def test_quiet_holds_back_native_output_and_shows_it_when_the_block_fails(capfd):
    import os

    with quiet():
        os.write(1, b"chatter\n")
    assert capfd.readouterr().out == ""
    with pytest.raises(RuntimeError), quiet():
        os.write(1, b"the reason\n")
        raise RuntimeError
    assert "the reason" in capfd.readouterr().err

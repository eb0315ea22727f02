"""Validation of one model against another."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxcomp.errors import ModelError, ProviderError
from onnxcomp.runtime import open_session, read_samples, samples_for
from onnxcomp.validation import Validation, validate

X = np.random.default_rng(0).standard_normal((40, 6), np.float32)


def linear(scale=1.0, output="y", rows=6):
    w = np.linspace(-1, 1, rows * 4, dtype=np.float32).reshape(rows, 4) * np.float32(scale)
    model = onnx.parser.parse_model(f"""
        <ir_version: 10, opset_import: ["" : 21]>
        agraph (float[N, 6] x) => (float[N, 4] {output}, int64[N, 1] top)
        <float[{rows}, 4] w> {{ {output} = MatMul(x, w)  top = ArgMax<axis=1>({output}) }}
        """)
    model.graph.initializer.append(onnx.numpy_helper.from_array(w, "w"))
    return model.SerializeToString()


def samples(limit=None):
    return read_samples({"x": X}, open_session(linear()).inputs, limit)


def test_a_model_against_itself():
    (result,) = validate(linear(), linear(), samples())
    assert (result.provider, result.samples, result.synthetic) == ("cpu", 40, False)
    assert [output.name for output in result.outputs] == ["y", "top"]
    assert all(output.agreement == 1 for output in result.outputs)
    assert result.finite
    assert result.optimiser_is_safe
    assert result.problem is None
    assert result.worst_snr_db == np.inf


def test_a_known_error():
    (result,) = validate(linear(), linear(1.1), samples())
    assert result.worst_snr_db == pytest.approx(20, abs=1e-3)
    assert result.outputs[0].cosine == pytest.approx(1)
    assert result.outputs[1].agreement == 1
    assert result.problem is None


def test_samples_on_which_the_original_is_not_finite_are_named():
    x = X.copy()
    x[[9, 30, 34]] = np.nan
    read = read_samples({"x": x}, open_session(linear()).inputs)
    (result,) = validate(linear(), linear(), read)
    assert result.not_finite == (9, 30, 34)
    assert result.fed == ("40 samples, on 3 of which the original is not finite itself: 9, 30, 34")
    assert result.outputs[0].agreement == pytest.approx(37 / 40)
    (held,) = validate(linear(), linear(), read.parted(5)[1].batched(3))
    assert held.not_finite == (9, 34)
    (whole,) = validate(linear(), linear(), samples())
    assert (whole.not_finite, whole.fed) == ((), "40 samples")


def test_a_result_of_nans(tmp_path):
    path = tmp_path / "result.onnx"
    path.write_bytes(linear(np.nan))
    (result,) = validate(linear(), path, samples(3))
    assert not result.finite
    assert result.problem == "outputs are not finite where the original's are ('y')"


@pytest.mark.parametrize(
    ("other", "text"),
    [
        (b"garbage", "cannot load the result on cpu: Failed to load model because"),
        (linear(output="z"), "the result has no output 'y' (outputs: z, top)"),
        (linear(rows=5), "cannot "),
    ],
)
def test_a_result_that_fails_is_a_record(other, text):
    (result,) = validate(linear(), other, samples())
    assert str(result.failure).startswith(text)
    assert result.problem == result.failure
    assert result.outputs == ()


def test_a_result_with_another_input():
    other = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 21]>
        agraph (float[N, 6] x, float k) => (float[N, 6] y, float top)
        { y = Mul(x, k) top = Neg(k) }
        """)
    (result,) = validate(linear(), other.SerializeToString(), samples())
    assert result.failure == "the result needs an input 'k' (inputs of the original: x)"


def test_an_original_that_fails_is_an_error():
    with pytest.raises(ModelError, match=r"^cannot load the original on cpu: "):
        validate(b"garbage", linear(), samples())


def test_a_missing_provider_is_an_error():
    with pytest.raises(ProviderError, match=r"^provider 'qnn' is not installed here"):
        validate(linear(), linear(), samples(), ("cpu", "qnn"))


def test_every_provider_and_the_progress():
    shares = []
    results = validate(
        linear(), linear(), samples(), ("cpu", "CPUExecutionProvider"), progress=shares.append
    )
    assert [result.provider for result in results] == ["cpu", "CPUExecutionProvider"]
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_a_fusion_that_computes_something_else_is_seen():
    """ONNX Runtime fuses this to a kernel that scales the weight along the other axis."""
    random = np.random.default_rng(0)
    w = random.integers(-127, 127, (64, 64), dtype=np.int8)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["a"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["b"], axis=0),
        helper.make_node("MatMul", ["a", "b"], ["y"]),
    ]
    scales = np.geomspace(0.001, 0.1, 64, dtype=np.float32)
    constants = {
        "s": np.array(0.03, np.float32),
        "z": np.array(128, np.uint8),
        "w": w,
        "ws": scales,
        "wz": np.zeros(64, np.int8),
    }
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 64])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 64])],
            [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 21)],
        ir_version=10,
    )
    float_model = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 21]>
        agraph (float[N, 64] x) => (float[N, 64] y) <float[64, 64] w> { y = MatMul(x, w) }
        """)
    dense = w * scales[:, None]
    float_model.graph.initializer.append(onnx.numpy_helper.from_array(dense, "w"))
    original, result = float_model.SerializeToString(), model.SerializeToString()
    data = samples_for(open_session(original))
    (found,) = validate(original, result, data)
    if found.optimised_difference_result < 0.1:
        pytest.skip("this onnxruntime has no such fusion")
    assert not found.optimiser_is_safe
    assert str(found.problem).startswith("optimised and unoptimised outputs differ by ")
    assert found.synthetic


def test_the_margin_of_the_optimiser():
    base = validate(linear(), linear(), samples(2))[0]

    def with_differences(own, result, outputs=base.outputs, share=None):
        update = {
            "optimised_difference_original": own,
            "optimised_difference_result": result,
            "rounding_share": share,
            "outputs": outputs,
        }
        return base.model_copy(update=update)

    assert with_differences(1e-7, 9e-4).optimiser_is_safe
    assert not with_differences(1e-7, 2e-3).optimiser_is_safe
    assert with_differences(1e-3, 3e-3).optimiser_is_safe
    assert not with_differences(1e-3, np.inf).optimiser_is_safe
    assert with_differences(0.0, 0.09, base.outputs[1:]).optimiser_is_safe
    assert with_differences(None, None).optimiser_is_safe
    assert with_differences(1e-7, 0.1, share=31.0).optimiser_is_safe
    assert not with_differences(1e-7, 0.1, share=33.0).optimiser_is_safe


def test_the_json_of_a_record():
    record = validate(linear(), linear(), samples(2))[0]
    written = json.loads(record.model_dump_json())
    assert written == record.model_dump(mode="json")
    keys = {"provider", "samples", "synthetic", "outputs", "finite", "optimiser_is_safe"}
    assert keys < set(written)
    assert {"name", "cosine", "snr_db", "max_abs", "agreement"} < set(written["outputs"][0])
    assert written["outputs"][0]["snr_db"] is None
    broken = Validation(
        provider="cpu", samples=1, synthetic=False, outputs=(), optimised_difference_result=np.inf
    )
    assert broken.model_dump(mode="json")["optimised_difference_result"] is None


def test_outputs_whose_shape_depends_on_the_data():
    def model(threshold):
        return onnx.parser.parse_model(f"""
            <ir_version: 10, opset_import: ["" : 21]>
            agraph (float[N, 6] x) => (int64[2, M] y)
            <float t = {{{threshold}}}> {{ b = Greater(x, t)  y = NonZero(b) }}
            """).SerializeToString()

    (result,) = validate(model(0.0), model(0.5), samples())
    assert result.outputs[0].agreement == 0
    assert "differs in shape in 3 of 3 feeds" in str(result.outputs[0].note)
    assert result.problem is None


def shaped(node, form, kind="float"):
    """A model whose output has the shape that ``node`` makes, and declares ``form``."""
    return onnx.parser.parse_model(f"""
        <ir_version: 10, opset_import: ["" : 21]>
        agraph (float[N, 6] x) => ({kind}{form} y)
        <bool[3] some = {{1, 0, 1}}, int64[2] three = {{-1, 3}}, int64[3] cube = {{-1, 2, 3}}>
        {{ {node} }}
        """).SerializeToString()


SAME = "y = Neg(x)"
NARROW = "y = Reshape(x, three)"
CUBE = "y = Reshape(x, cube)"
# ONNX Runtime cannot tell the size of this one before it runs.
FREE = "y = Compress<axis = 1>(x, some)"


@pytest.mark.parametrize("other", [shaped(FREE, "[A, B]"), shaped(CUBE, "")], ids=["size", "rank"])
def test_a_shape_that_breaks_what_the_original_declares(other):
    (result,) = validate(shaped(SAME, "[N, 6]"), other, samples())
    assert result.failure is None
    assert result.problem == "output 'y' differs in shape in 3 of 3 feeds"
    assert result.model_dump(mode="json")["outputs"][0]["breach"] in result.problem


def test_a_free_size_that_differs_is_a_note():
    (result,) = validate(shaped(FREE, "[A, B]"), shaped(SAME, "[A, B]"), samples())
    assert result.problem is None
    assert "differs in shape" in str(result.outputs[0].note)


@pytest.mark.parametrize(
    ("node", "form", "kind", "declared"),
    [
        (NARROW, "[M, 3]", "float", "tensor(float)[M, 3]"),
        (CUBE, "[M, 2, 3]", "float", "tensor(float)[M, 2, 3]"),
        ("y = Cast<to = 8>(x)", "[N, 6]", "string", "tensor(string)[N, 6]"),
    ],
)
def test_declarations_that_contradict_each_other(node, form, kind, declared):
    (result,) = validate(shaped(SAME, "[N, 6]"), shaped(node, form, kind), samples())
    assert result.problem == (
        f"the result declares output y {declared}, against y tensor(float)[N, 6] in the original"
    )


def test_on_openvino():
    pytest.importorskip("onnxruntime_ep_openvino")
    (result,) = validate(linear(), linear(), samples(), ("openvino",))
    assert result.problem is None
    assert result.optimised_difference_original < 1e-5

"""What of a model goes together, what stays, and what else changes when channels go."""

import numpy as np
import onnx
import pytest
from channels import built, check_same, feed_of, kill, pruned, run

from onnxcomp import load_model
from onnxcomp.errors import ModelError
from onnxcomp.graph import Constant, StoreValues, model_proto, weights
from onnxcomp.stores import Codebook, store_codes
from onnxcomp.testing import random_feeds, random_model
from onnxcomp_passes.prune_channels import find_groups, remove

INT = np.int64


def reasons(frozen, name, axis=0):
    return {each.reason for each in frozen if (each.name, each.axis) == (name, axis)}


def halved(model, groups):
    """Remove every other channel of each group."""
    kept = [np.arange(group.count) % 2 == 0 for group in groups]
    kill(groups, kept)
    dead = model_proto(model)
    remove(model, groups, kept)
    return dead, model_proto(model)


@pytest.mark.parametrize("seed", range(30))
def test_random_models_without_dead_channels(seed):
    proto = random_model(seed)
    _, _, dead, result = pruned(proto, seed)
    check_same(dead, result, *random_feeds(proto, seed, 2))


def test_a_residual_block_is_one_group_with_all_its_parts():
    proto = built(
        "a = Conv(x, w, b) r = Conv(a, u) s = Add(a, r) n = BatchNormalization(s, g, g, g, g)"
        "y = Conv(n, v)",
        w=(12, 4, 1, 1),
        b=(12,),
        u=(12, 12, 1, 1),
        g=np.ones(12, np.float32),
        v=(3, 12, 1, 1),
    )
    (group,), _ = find_groups(load_model(proto))
    assert group.count == 12
    parts = [
        (part.tensor.name, part.axis, [use.role for use in part.uses]) for part in group.weights
    ]
    assert sorted(parts) == [
        ("b", 0, ["follows"]),
        ("g", 0, ["follows"] * 4),
        ("u", 0, ["produces"]),
        ("u", 1, ["consumes"]),
        ("v", 1, ["consumes"]),
        ("w", 0, ["produces"]),
    ]
    assert {part.tensor.name for part in group.tensors} == {"a", "r", "s", "n"}


def test_heads_take_their_width():
    proto = built(
        "q = MatMul(x, w) r = Reshape(q, s) t = Transpose <perm = [0, 2, 1, 3]> (r)"
        "p = Softmax <axis = -1> (t) u = Transpose <perm = [0, 2, 1, 3]> (p) f = Reshape(u, e)"
        "y = MatMul(f, v)",
        inputs="float[2, 5, 8] x",
        w=(8, 24),
        s=np.array([0, 0, 8, 3], INT),
        e=np.array([0, 0, 24], INT),
        v=(24, 3),
    )
    model = load_model(proto)
    (group,), _ = find_groups(model)
    assert group.count == 8
    places = {part.tensor.name: part.places for part in group.weights}
    np.testing.assert_array_equal(places["w"], np.arange(24).reshape(8, 3))
    dead, result = halved(model, [group])
    check_same(dead, result, feed_of(proto))


def test_a_detection_head_keeps_its_layout():
    """Boxes and classes are cut out of channels and put together: those stay, the rest goes."""
    proto = built(
        "h = Conv(x, w) a = Conv(h, b) c = Conv(h, k) d = Concat <axis = 1> (a, c)"
        "r = Reshape(d, s) e, f = Split <axis = 1> (r, n) g = Sigmoid(f)"
        "y = Concat <axis = 1> (e, g)",
        w=(16, 4, 1, 1),
        b=(4, 16, 1, 1),
        k=(7, 16, 1, 1),
        s=np.array([0, 11, -1], INT),
        n=np.array([4, 7], INT),
    )
    model = load_model(proto)
    (group,), frozen = find_groups(model)
    assert [part.tensor.name for part in group.weights] == ["w", "b", "k"]
    assert reasons(frozen, "b") == reasons(frozen, "k") == {"is an output"}
    dead, result = halved(model, [group])
    check_same(dead, result, feed_of(proto))


def test_a_number_that_several_operators_read_is_copied_for_the_one_that_changes():
    proto = built(
        "a = Conv(x, w) p = Reshape(a, s) b = Reshape(x, t) "
        "q = Transpose <perm = [0, 2, 1]> (p) "
        "c = MatMul(q, v) z = ConstantOfShape(s) d = Add(z, p)"
        "e = Transpose <perm = [0, 2, 1]> (d) f = MatMul(e, v) o = Add(c, f) y = Add(o, u)"
        "m = Reshape(k, s)",
        outputs="float[] y, float[] m",
        w=(12, 4, 1, 1),
        s=np.array([2, 12, 36], INT),
        t=np.array([2, 4, 36], INT),
        v=(12, 3),
        u=(1,),
        k=(2, 12, 36),
    )
    model = load_model(proto)
    groups, _ = find_groups(model)
    assert [group.count for group in groups] == [12]
    dead, result = halved(model, groups)
    check_same(dead, result, feed_of(proto))
    shapes = [each for each in result.graph.initializer if each.data_type == 7]
    found = {tuple(onnx.numpy_helper.to_array(each).tolist()) for each in shapes}
    assert found == {(2, 12, 36), (2, 6, 36), (2, 4, 36)}


def test_a_number_that_arithmetic_reads_too_stays():
    proto = built(
        "a = Conv(x, w) n = Concat <axis = 0> (i, j, k) r = Reshape(a, n) c = Cast <to = 1> (n)"
        "m = ReduceMax(c) t = Transpose <perm = [0, 2, 1]> (r) d = MatMul(t, v) y = Add(d, m)",
        w=(12, 4, 1, 1),
        i=np.array([2], INT),
        j=np.array([12], INT),
        k=np.array([-1], INT),
        v=(12, 3),
    )
    groups, frozen = find_groups(load_model(proto))
    assert not groups
    assert reasons(frozen, "w") == {"its size goes into Cast"}


def test_what_is_computed_of_a_shape_follows():
    """A length that was not measured runs too: only literal numbers are rewritten."""
    proto = built(
        "h = MatMul(x, w) s = Shape(h) b = Gather(s, zero) l = Gather(s, one)"
        "b1 = Unsqueeze(b, z) l1 = Unsqueeze(l, z) n = Concat <axis = 0> (b1, l1, heads, width)"
        "r = Reshape(h, n) t = Transpose <perm = [0, 2, 1, 3]> (r) a = Softmax <axis = 2> (t)"
        "u = Transpose <perm = [0, 2, 1, 3]> (a) m = Concat <axis = 0> (b1, l1, all)"
        "f = Reshape(u, m) y = MatMul(f, v)",
        inputs="float[batch, length, 8] x",
        w=(8, 24),
        zero=np.array(0, INT),
        one=np.array(1, INT),
        z=np.array([0], INT),
        heads=np.array([6], INT),
        width=np.array([4], INT),
        all=np.array([24], INT),
        v=(24, 3),
    )
    proto.graph.output[0].CopyFrom(
        onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["batch", "length", 3])
    )
    model = load_model(proto)
    (group,), _ = find_groups(model)
    assert group.count == 6
    dead, result = halved(model, [group])
    numbers = np.random.default_rng(0)
    feeds = [{"x": numbers.standard_normal(shape, np.float32)} for shape in ((1, 9, 8), (3, 2, 8))]
    check_same(dead, result, *feeds)


def test_places_from_the_end_of_an_axis_of_any_length_follow():
    """Rows of a constant are taken, behind however many are fed; of the others the last goes."""
    proto = built(
        "z = Concat <axis = 0> (x, k) l = Slice(z, s, e) y = MatMul(v, l)",
        inputs="float[length, 8] x",
        k=(6, 8),
        s=np.array([-5], INT),
        e=np.array([-1], INT),
        v=(3, 4),
    )
    model = load_model(proto)
    groups, _ = find_groups(model)
    assert [group.weights[0].places.ravel().tolist() for group in groups] == [[0, 5], [1, 2, 3, 4]]
    dead, result = halved(model, groups)
    numbers = np.random.default_rng(0)
    check_same(dead, result, *({"x": numbers.standard_normal((n, 8), np.float32)} for n in (1, 7)))


def test_unequal_parts_of_a_split_get_sizes():
    proto = built(
        "a = Conv(x, w) p, q = Split <axis = 1> (a) r = Conv(p, v) s = Conv(q, u) y = Add(r, s)",
        w=(12, 4, 1, 1),
        v=(3, 6, 1, 1),
        u=(3, 6, 1, 1),
    )
    model = load_model(proto)
    groups, _ = find_groups(model)
    kept = [np.arange(6) < 2, np.arange(6) < 5]
    kill(groups, kept)
    dead = model_proto(model)
    remove(model, groups, kept)
    check_same(dead, model_proto(model), feed_of(proto))


def test_a_tied_table_loses_what_both_its_readers_lose():
    proto = built(
        "a = Gather(w, i) b = Relu(a) t = Transpose <perm = [1, 0]> (w) y = MatMul(b, t)",
        inputs="int64[2, 5] i",
        w=(9, 12),
    )
    model = load_model(proto)
    (group,), frozen = find_groups(model)
    (part,) = group.weights
    assert (part.axis, sorted(use.role for use in part.uses)) == (1, ["consumes", "produces"])
    assert reasons(frozen, "w") == {"is an output"}
    dead, result = halved(model, [group])
    check_same(dead, result, feed_of(proto))


BRANCHING = (
    "h = Conv(x, w) c = ReduceMax <keepdims = 0> (x) d = Greater(c, c)"
    "i = If (d) <then_branch = g () => (float[2, 12, 6, 6] m) { m = Relu(h) },"
    "else_branch = g () => (float[2, 12, 6, 6] n) { n = Neg(h) }> y = Conv(i, v)"
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (BRANCHING, "is read inside If"),
        ("h = Conv(x, w) i = Det(h) y = Conv(h, v)", "no rule for Det"),
        ("h = Conv(x, w) y = Conv(h, v) z = Identity(h)", "is an output"),
    ],
)
def test_what_has_no_rule_stays(text, reason):
    outputs = "float[] y, float[] z" if "z =" in text else "float[] y"
    proto = built(text, outputs=outputs, w=(12, 4, 1, 1), v=(3, 12, 1, 1))
    groups, frozen = find_groups(load_model(proto))
    assert not groups
    assert reason in reasons(frozen, "w")


def test_what_a_caller_may_override_stays():
    proto = built("h = Conv(x, w) y = Conv(h, v)", w=(12, 4, 1, 1), v=(3, 12, 1, 1))
    proto.graph.input.append(
        onnx.helper.make_tensor_value_info("v", onnx.TensorProto.FLOAT, (3, 12, 1, 1))
    )
    groups, frozen = find_groups(load_model(proto))
    assert not groups
    assert reasons(frozen, "v", 1) == {"may be overridden by a caller"}


def test_listed_initializers_of_early_versions_are_declared_anew():
    proto = built("h = Conv(x, w) y = Conv(h, v)", 8, w=(12, 4, 1, 1), v=(3, 12, 1, 1))
    proto.ir_version = 3
    proto.graph.input.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in (("w", (12, 4, 1, 1)), ("v", (3, 12, 1, 1)))
    )
    model = load_model(proto)
    groups, _ = find_groups(model, feed_of(built("y = Relu(x)")))
    dead, result = halved(model, groups)
    check_same(dead, result, {"x": feed_of(built("y = Relu(x)"))["x"]})
    assert result.graph.initializer[0].dims[0] == 6


def test_declared_shapes_inside_follow():
    proto = built("h = Conv(x, w) y = Conv(h, v)", w=(12, 4, 1, 1), v=(3, 12, 1, 1))
    proto.graph.value_info.append(
        onnx.helper.make_tensor_value_info("h", onnx.TensorProto.FLOAT, ("n", 12, 6, None))
    )
    model = load_model(proto)
    _, result = halved(model, find_groups(model)[0])
    dims = result.graph.value_info[0].type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in dims] == ["n", 6, 6, 0]


def test_a_weight_in_a_store_stays():
    proto = built(
        "h = MatMul(x, w) y = MatMul(h, v)", inputs="float[2, 64] x", w=(64, 64), v=(64, 9)
    )
    model = load_model(proto)
    (weight,) = (each for each in weights(model) if each.name == "w")
    codes = np.zeros(64 * 64, np.uint8)
    codebook = Codebook(np.linspace(0, 1, 4, dtype=np.float32)[:, None])
    kind = {"shape": (64, 64), "dtype": np.dtype(np.float32)}
    store = store_codes(codes, codebook, **kind, opset=model.opset)
    weight.tensor.values = StoreValues(store)
    groups, frozen = find_groups(model)
    assert not groups
    assert reasons(frozen, "w", 1) == {"is in a store"}


def test_something_has_to_stay():
    model = load_model(built("h = Conv(x, w) y = Conv(h, v)", w=(12, 4, 1, 1), v=(3, 12, 1, 1)))
    groups, _ = find_groups(model)
    with pytest.raises(ModelError, match="cannot remove all 12 channels of 'w'; keep one"):
        remove(model, groups, [np.zeros(12, bool)])


def test_groups_are_found_where_the_model_does_not_run():
    """Its input is a sequence, of which nothing can be made up; shape inference knows the rest."""
    proto = built("h = Conv(x, w) y = Conv(h, v)", w=(12, 4, 1, 1), v=(3, 12, 1, 1))
    proto.graph.input.append(
        onnx.helper.make_tensor_sequence_value_info("s", onnx.TensorProto.FLOAT, None)
    )
    groups, _ = find_groups(load_model(proto))
    assert [group.count for group in groups] == [12]


def test_the_model_stays_as_it_is_until_channels_are_removed():
    proto = built("h = Conv(x, w) y = Conv(h, v)", w=(12, 4, 1, 1), v=(3, 12, 1, 1))
    model = load_model(proto)
    before = model_proto(model)
    groups, _ = find_groups(model)
    assert model_proto(model) == before
    assert all(isinstance(part.tensor, Constant) for part in groups[0].weights)
    assert run(proto, feed_of(proto))["y"].shape == (2, 3, 6, 6)

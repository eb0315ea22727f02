"""Hard sigmoids and hard swishes in pieces, and where they have to stay so."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from simplifying import built, numbers, operators, run, same_outputs, simplified

SIXTH = np.float32(1 / 6)

CLIPS = {
    10: "b = Clip <min = 0.0, max = 6.0> (a)",
    13: "b = Clip (a, zero, six)",
}

SWISHES = [
    "c = Mul (x, b) y = Div (c, six)",
    "c = Mul (b, x) y = Mul (sixth, c)",
    "c = Div (b, six) y = Mul (x, c)",
    "c = Mul (b, sixth) y = Mul (c, x)",
    "c = Div (x, six) y = Mul (c, b)",
    "c = Mul (x, sixth) y = Mul (b, c)",
]

NEXT_TO_BOUNDS = np.nextafter(np.float32([-3, -3, 3, 3]), np.float32([-4, 0, 0, 4]))


def hard_numbers(*shape):
    x = 4 * numbers(*shape)
    special = [-3, 3, 0, -0.0, -7, 7, -np.inf, np.inf, np.nan, 1e30, -3e38, *NEXT_TO_BOUNDS]
    x.reshape(-1)[: len(special)] = special
    assert (x < -3).any()
    assert (x > 3).any()
    return x


def built_model(body, opset=13, dtype=np.float32, shape="2, 6, 7", **other):
    element = {np.float32: "float", np.float16: "float16", np.float64: "double"}[dtype]
    tensors = {"three": 3, "zero": 0, "six": 6, "sixth": SIXTH} | other
    read = {name: np.asarray(values, dtype) for name, values in tensors.items() if name in body}
    return built(f"g ({element}[{shape}] x) => ({element}[{shape}] y) {{ {body} }}", opset, **read)


def same_values(proto, result, x):
    onnx.checker.check_model(result, full_check=True)
    with np.errstate(all="ignore"):
        (one,), (other,) = run(proto, {"x": x}), run(result, {"x": x})
    np.testing.assert_allclose(other, one, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("opset", CLIPS)
@pytest.mark.parametrize("ending", SWISHES)
def test_hard_swish_in_any_order(ending, opset):
    proto = built_model(f"a = Add (x, three) {CLIPS[opset]} {ending}", opset)
    result, _ = simplified(proto)
    assert operators(result.graph) == ["HardSigmoid", "Mul"]
    assert result.opset_import == proto.opset_import
    assert not result.graph.initializer
    assert result.graph.output == proto.graph.output
    same_values(proto, result, hard_numbers(2, 6, 7))


@pytest.mark.parametrize("opset", CLIPS)
@pytest.mark.parametrize("ending", ["Div (b, six)", "Mul (b, sixth)", "Mul (sixth, b)"])
def test_hard_sigmoid(ending, opset):
    proto = built_model(f"a = Add (three, x) {CLIPS[opset]} y = {ending}", opset)
    result, _ = simplified(proto)
    (node,) = result.graph.node
    assert node.op_type == "HardSigmoid"
    attributes = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
    assert attributes == {"alpha": SIXTH, "beta": 0.5}
    same_values(proto, result, hard_numbers(2, 6, 7))


def test_in_constant_nodes_and_in_a_row():
    lines = []
    for place in range(3):
        x = f"x{place}" if place else "x"
        lines += [
            f"t{place} = Constant <value = float {{3.0}}> ()",
            f"d{place} = Constant <value = float {{6.0}}> ()",
            f"z{place} = Constant <value = float {{0.0}}> ()",
            f"a{place} = Add ({x}, t{place})",
            f"b{place} = Clip (a{place}, z{place}, d{place})",
            f"c{place} = Mul ({x}, b{place})",
            f"x{place + 1} = Div (c{place}, d{place})",
        ]
    proto = built_model(" ".join(lines) + " y = Relu (x3)")
    result, _ = simplified(proto)
    assert operators(result.graph) == ["HardSigmoid", "Mul"] * 3 + ["Relu"]
    assert len(result.graph.node) == 7
    same_values(proto, result, hard_numbers(2, 6, 7))


def test_other_readers_of_the_numbers_keep_them():
    body = f"a = Add (x, three) {CLIPS[13]} c = Mul (x, b) d = Div (c, six) y = Mul (d, three)"
    proto = built_model(body)
    result, _ = simplified(proto)
    assert operators(result.graph) == ["HardSigmoid", "Mul", "Mul"]
    assert [each.name for each in result.graph.initializer] == ["three"]
    same_values(proto, result, hard_numbers(2, 6, 7))


SIGMOID = f"a = Add (x, three) {CLIPS[13]} y = Div (b, six)"


@pytest.mark.parametrize("rank", [1, 3, 4])
@pytest.mark.parametrize("name", ["three", "sixth"])
def test_shapes_of_the_numbers(name, rank):
    values = {"three": 3, "sixth": SIXTH}[name]
    body = f"a = Add (x, three) {CLIPS[13]} y = Mul (b, sixth)"
    proto = built_model(body, **{name: np.full([1] * rank, values)})
    result, _ = simplified(proto)
    expected = ["HardSigmoid"] if rank <= 3 else ["Add", "Clip", "Mul"]
    assert operators(result.graph) == expected


@pytest.mark.parametrize(
    ("body", "other"),
    [
        (SIGMOID, {"three": 2.999}),
        (SIGMOID, {"zero": -0.1}),
        (SIGMOID, {"three": [3, 3, 3, 3, 3, 3, 4]}),
        (SIGMOID, {"three": [3] * 7}),
        ("a = Add (x, three) b = Clip (a, zero, six) y = Mul (b, sixth)", {"sixth": 0.1666}),
        ("a = Add (x, three) b = Clip (a, zero, six) y = Div (six, b)", {}),
        ("a = Add (x, three) b = Clip (a, zero, six) c = Mul (b, b) y = Div (c, six)", {}),
        ("a = Add (x, three) b = Clip (a, zero, six) c = Mul (a, b) y = Div (c, six)", {}),
        ("a = Add (x, three) b = Clip (a, zero) y = Div (b, six)", {}),
        ("a = Add (x, three) b = Clip (a, , six) y = Div (b, six)", {}),
        ("a = Sub (x, three) b = Clip (a, zero, six) y = Div (b, six)", {}),
        ("a = Add (x, three) b = Clip (a, zero, six) c = Exp (x) y = Mul (b, c)", {}),
        ("a = Add (x, three) b = Clip (a, zero, six) c = Mul (b, z) y = Div(c, six)", {"z": 2}),
        ("a = Add (x, three) b = Clip (a, zero, six) c = Div (z, six) y = Mul(b, c)", {"z": 2}),
    ],
)
def test_what_is_something_else_stays(body, other):
    proto = built_model(body, **other)
    result, _ = simplified(proto)
    assert "Clip" in operators(result.graph)
    assert "HardSigmoid" not in operators(result.graph)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_types_without_a_kernel_stay(dtype):
    proto = built_model(SIGMOID, dtype=dtype)
    assert operators(simplified(proto)[0].graph) == ["Add", "Clip", "Div"]


@pytest.mark.parametrize("tensor", ["a", "b", "c"])
def test_pieces_that_are_read_or_given_out_stay(tensor):
    body = f"a = Add (x, three) {CLIPS[13]} c = Mul (x, b) y = Div (c, six)"
    read = built_model(body.replace("y =", "e =") + f" f = Exp ({tensor}) y = Sub (e, f)")
    given = built_model(body)
    given.graph.output.add().CopyFrom(given.graph.output[0])
    given.graph.output[1].name = tensor
    for proto in (read, given):
        assert "HardSigmoid" not in operators(simplified(proto)[0].graph)


def test_a_number_that_a_caller_may_feed_stays():
    proto = built_model(SIGMOID)
    three = onnx.helper.make_tensor_value_info("three", onnx.TensorProto.FLOAT, [])
    proto.graph.input.append(three)
    result, _ = simplified(proto)
    assert operators(result.graph) == ["Add", "Clip", "Div"]
    assert result.graph.input == proto.graph.input


def test_old_opsets_stay():
    body = f"a = Add <broadcast = 1> (x, three) {CLIPS[10]} y = Div <broadcast = 1> (b, six)"
    proto = built_model(body, 6)
    assert operators(simplified(proto)[0].graph) == ["Add", "Clip", "Div"]


def test_branches():
    text = """
    g (float[2, 8] x, bool flag) => (float[2, 8] y) {
        s = Abs (x)
        y = If (flag) <
            then_branch = one () => (float[2, 8] p) {
                a = Add (s, three) b = Clip (a, zero, six) c = Mul (s, b) p = Div (c, six)
            },
            else_branch = other () => (float[2, 8] q) {
                e = Add (x, three) f = Clip (e, zero, six) q = Div (f, six)
            }
        >
    }"""
    proto = built(text, three=np.float32(3), zero=np.float32(0), six=np.float32(6))
    result, _ = simplified(proto)
    bodies = [each.g for each in result.graph.node[1].attribute]
    assert [operators(body) for body in bodies] == [["HardSigmoid", "Mul"], ["HardSigmoid"]]
    for flag in (True, False):
        same_outputs(proto, result, x=4 * numbers(2, 8), flag=np.array(flag))


def test_loops_and_what_their_bodies_read():
    text = """
    g (float[2, 8] x, int64 n, bool go) => (float[2, 8] y) {
        o = Add (x, three) p = Clip (o, zero, six) q = Div (p, six)
        y = Loop (n, go, x) <
            body = step (int64 i, bool more, float[2, 8] h) => (bool again, float[2, 8] r) {
                again = Identity (more)
                a = Add (h, three) b = Clip (a, zero, six) c = Mul (h, b) d = Div (c, six)
                e = Mul (d, p) r = Sub (e, q)
            }
        >
    }"""
    numbers_read = {"three": np.float32(3), "zero": np.float32(0), "six": np.float32(6)}
    proto = built(text, **numbers_read)
    result, _ = simplified(proto)
    assert operators(result.graph) == ["Add", "Clip", "Div", "Loop"]
    body = next(each.g for each in result.graph.node[-1].attribute if each.name == "body")
    assert [kind for kind in operators(body) if kind != "Identity"] == [
        "HardSigmoid",
        "Mul",
        "Mul",
        "Sub",
    ]
    feed = {"x": 4 * numbers(2, 8), "n": np.array(3), "go": np.array(1, np.bool_)}
    same_outputs(proto, result, **feed)


def test_functions():
    proto = built_model("y = own.swish (x)")
    text = f"""<opset_import: ["" : 13], domain: "own"> swish (x) => (y) {{
        three = Constant <value = float {{3.0}}> ()
        zero = Constant <value = float {{0.0}}> ()
        six = Constant <value = float {{6.0}}> ()
        a = Add (x, three) {CLIPS[13]} c = Mul (x, b) y = Div (c, six)
    }}"""
    proto.functions.append(onnx.parser.parse_function(text))
    proto.opset_import.add(domain="own", version=1)
    result, _ = simplified(proto)
    assert [node.op_type for node in result.functions[0].node] == ["HardSigmoid", "Mul"]
    same_values(proto, result, hard_numbers(2, 6, 7))


def test_numbers_held_in_the_body():
    text = """
    g (float[2, 8] x, bool flag) => (float[2, 8] y) {
        y = If (flag) <
            then_branch = one () => (float[2, 8] p) {
                a = Add (x, three) b = Clip (a, zero, six) p = Div (b, six)
            },
            else_branch = other () => (float[2, 8] q) { q = Abs (x) }
        >
    }"""
    proto = built(text)
    body = next(each.g for each in proto.graph.node[0].attribute if each.name == "then_branch")
    for name, value in (("three", 3), ("zero", 0), ("six", 6)):
        body.initializer.append(numpy_helper.from_array(np.float32(value), name))
    result, _ = simplified(proto)
    bodies = {each.name: each.g for each in result.graph.node[0].attribute}
    assert operators(bodies["then_branch"]) == ["HardSigmoid"]
    assert not bodies["then_branch"].initializer
    same_outputs(proto, result, x=4 * numbers(2, 8), flag=np.array(1, np.bool_))

"""Whoever knows GraphSurgeon can edit a model as ever, in bodies too."""

from itertools import pairwise

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnxruntime
import pytest
from onnx import helper as h
from onnx import numpy_helper as nh

from onnxcomp.errors import ModelError
from onnxcomp.graph import (
    Constant,
    copy_model,
    load_model,
    merge_constants,
    model_bytes,
    raise_opset,
    weights,
)
from onnxcomp.graph.order import ordered

X = np.array([1, 2, 3], np.float32)


def value(name, shape=(3,), kind=1):
    return h.make_tensor_value_info(name, kind, shape)


def tensor(name, *numbers):
    return nh.from_array(np.array(numbers, np.float32), name)


def load(nodes, weights=(), outputs=("y",), opset=17, inputs=("x",)):
    infos = [value(each) for each in inputs]
    graph = h.make_graph(nodes, "g", infos, [value(each) for each in outputs], weights)
    proto = h.make_model(graph, opset_imports=[h.make_opsetid("", opset)], ir_version=8)
    return load_model(proto)


def simple():
    nodes = [h.make_node("Add", ["x", "w"], ["a"], "add"), h.make_node("Relu", ["a"], ["y"])]
    return load(nodes, [tensor("w", 1, -5, 1)])


def branching():
    """Two branches, each with a weight of its own, that also read one of the main graph."""
    branches = {}
    for name, number in (("then_branch", 10), ("else_branch", 20)):
        nodes = [h.make_node("Add", ["a", "own"], ["b"]), h.make_node("Mul", ["b", "w"], ["c"])]
        own = [tensor("own", number, number, number)]
        branches[name] = h.make_graph(nodes, name, [], [value("c")], own)
    nodes = [
        h.make_node("Identity", ["x"], ["a"]),
        h.make_node("ReduceMax", ["x"], ["top"], keepdims=0),
        h.make_node("Greater", ["top", "two"], ["go"]),
        h.make_node("If", ["go"], ["y"], **branches),
    ]
    two = nh.from_array(np.array(2, np.float32), "two")
    return load(nodes, [tensor("w", 2, 2, 2), two])


def run(model, x=X):
    outputs = [
        onnxruntime.InferenceSession(model_bytes(each), providers=["CPUExecutionProvider"]).run(
            None, {"x": x}
        )[0]
        for each in (model, copy_model(model))
    ]
    np.testing.assert_array_equal(*outputs)
    onnx.checker.check_model(model_bytes(model))
    return outputs[0].tolist()


def test_new_values():
    model = simple()
    model.constants[0].values = np.array([1, 1, 1], np.float32)
    assert run(model) == [2, 3, 4]


def test_new_constant_as_an_input():
    model = simple()
    model.nodes[0].inputs[1] = gs.Constant("new", np.array([5, 5, 5], np.float32))
    assert run(model) == [6, 7, 8]
    assert b"\x01w" not in model_bytes(model)


def test_new_layers():
    model = simple()

    @gs.Graph.register()
    def double(self, tensor):
        return self.layer(
            op="Mul", inputs=[tensor, np.array([2], np.float32)], outputs=["doubled"]
        )[0]

    (old,) = model.outputs
    new = model.double(old)
    new.dtype, new.shape = old.dtype, old.shape
    model.outputs = [new]
    assert run(model) == [4, 0, 8]
    assert [each.name for each in load_model(model_bytes(model)).outputs] == [new.name]


def test_removed_layer_and_cleanup():
    model = simple()
    relu = model.nodes[1]
    model.outputs = [relu.inputs[0]]
    model.outputs[0].dtype, model.outputs[0].shape = np.float32, (3,)
    model.cleanup()
    assert [node.op for node in model.nodes] == ["Add"]
    assert run(model) == [2, -3, 4]


def test_changed_operator_and_attributes():
    model = simple()
    model.nodes[1].op = "LeakyRelu"
    model.nodes[1].attrs["alpha"] = 0.5
    assert run(model) == [2, -1.5, 4]
    again = load_model(model_bytes(model))
    again.nodes[1].attrs["alpha"] = 1.0
    assert run(again) == [2, -3, 4]


def test_tensor_that_becomes_a_constant():
    model = simple()
    model.nodes[0].outputs[0].to_constant(np.array([-1, 0, 1], np.float32))
    model.nodes[0].outputs.clear()
    model.nodes = model.nodes[1:]
    assert run(model) == [0, 0, 1]


def test_renamed_tensors():
    model = simple()
    model.constants[0].name = "other"
    model.nodes[0].outputs[0].name = "sum"
    model.inputs[0].name = "x"
    model.outputs[0].name = "result"
    assert run(model) == [2, 0, 4]
    assert b"other" in model_bytes(model)


def test_new_order_is_mended():
    model = simple()
    model.nodes = list(reversed(model.nodes))
    assert run(model) == [2, 0, 4]
    model.toposort()
    assert run(model) == [2, 0, 4]


def test_changed_shapes_and_types():
    model = simple()
    model.inputs[0].shape = ("n",)
    model.outputs[0].shape = ("m",)
    again = load_model(model_bytes(model))
    assert (again.inputs[0].shape, again.outputs[0].shape) == (["n"], ["m"])
    assert run(model) == [2, 0, 4]


def test_edits_in_bodies():
    model = branching()
    assert run(model) == [22, 24, 26]
    then = model.nodes[-1].attrs["then_branch"]
    otherwise = model.nodes[-1].attrs["else_branch"]
    then.constants[0].values = np.array([1, 1, 1], np.float32)
    assert run(model) == [4, 6, 8]
    then.nodes[0].inputs[1] = gs.Constant("new", np.array([2, 2, 2], np.float32))
    assert run(model) == [6, 8, 10]
    (old,) = then.outputs
    (new,) = then.layer(op="Neg", inputs=[old], outputs=["negated"])
    new.dtype, new.shape = old.dtype, old.shape
    then.outputs = [new]
    assert run(model) == [-6, -8, -10]
    assert run(model, -X) == [38, 36, 34]
    assert otherwise.constants[0].values[0] == 20


def test_a_constant_of_several_bodies_is_written_once():
    model = branching()
    shared = gs.Constant("shared", np.array([3, 3, 3], np.float32))
    for body in model.bodies():
        body.nodes[0].inputs[1] = shared
    assert run(model) == [8, 10, 12]
    again = load_model(model_bytes(model))
    assert [each.name for each in again.constants].count("shared") == 1


def test_new_names_that_are_taken():
    model = branching()
    for body in model.bodies():
        body.nodes[0].inputs[1] = gs.Constant("w", np.array([7, 7, 7], np.float32))
    with pytest.raises(ModelError, match="'w'"):
        model_bytes(model)


def test_a_copy_is_of_its_own():
    model = branching()
    before = model_bytes(model)
    copied = copy_model(model)
    copied.nodes[0].op = "Neg"
    copied.set_metadata("a", "b")
    for scope in copied.all_scopes():
        for constant in scope.constants:
            constant.values = np.zeros(constant.shape, np.float32)
        scope.nodes = scope.nodes[:-1]
    assert model_bytes(model) == before


def test_identical_constants_become_one():
    model = branching()
    otherwise, then = model.bodies()
    otherwise.constants[0].values = then.constants[0].held
    assert merge_constants(model, then.constants[0], otherwise.constants[0])
    assert run(model) == [22, 24, 26]
    assert run(model, -X) == [18, 16, 14]
    assert len(list(load_model(model_bytes(model)).constants)) == 3


def chain(count):
    names = [f"t{number}" for number in range(count + 1)]
    nodes = [h.make_node("Neg", [a], [b], b) for a, b in pairwise(names)]
    return load(nodes, outputs=names[-1:], inputs=names[:1])


def test_a_long_chain_in_reverse():
    model = chain(5000)
    nodes = list(model.nodes)
    assert ordered(nodes) == nodes
    assert ordered(nodes[::-1]) == nodes
    model.nodes = nodes[::-1]
    names = [node.name for node in load_model(model_bytes(copy_model(model))).nodes]
    assert names == [node.name for node in nodes]


def test_a_file_in_no_order_is_read_and_put_in_order():
    proto = onnx.ModelProto.FromString(model_bytes(simple()))
    nodes = list(proto.graph.node)[::-1]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    assert run(load_model(proto)) == [2, 0, 4]


def test_a_cycle():
    model = chain(3)
    model.nodes[0].inputs = [model.nodes[2].outputs[0]]
    with pytest.raises(ModelError, match=r"^the graph has a cycle through node 't1' \(Neg\)$"):
        model_bytes(model)


def test_what_bodies_read_comes_first():
    model = branching()
    model.nodes = [model.nodes[3], *model.nodes[:3]]
    assert run(model) == [22, 24, 26]


@pytest.mark.parametrize("opset", [7, 9, 13, 17])
def test_raising_the_opset(opset):
    nodes = [h.make_node("Add", ["x", "w"], ["a"], "add"), h.make_node("Relu", ["a"], ["y"])]
    model = load(nodes, [tensor("w", 1, -5, 1)], opset=opset)
    model.set_metadata("key", "value")
    before = run(model)
    raise_opset(model, 21)
    assert model.opset == 21
    assert model.metadata == {"key": "value"}
    assert run(model) == before


def test_raising_the_opset_from_6():
    nodes = [h.make_node("Add", ["x", "w"], ["a"], "add", broadcast=1)]
    nodes.append(h.make_node("Relu", ["a"], ["y"]))
    model = load(nodes, [tensor("w", 1, -5, 1)], opset=6)
    raise_opset(model, 7)
    assert run(model) == [2, 0, 4]


def test_functions_cannot_be_raised():
    model = simple()
    model.local_functions = [model]
    with pytest.raises(ModelError, match="cannot raise the opset from 17 to 21: the model has f"):
        raise_opset(model, 21)


def test_raising_the_opset_keeps_large_weights_where_they_are():
    weight = nh.from_array(np.ones((640, 3), np.float32), "w")
    nodes = [h.make_node("Gather", ["w", "i"], ["rows"]), h.make_node("Add", ["x", "rows"], ["y"])]
    index = nh.from_array(np.array(3), "i")
    model = load(nodes, [weight, index], opset=9)
    before = model.constants[0].values
    raise_opset(model, 11)
    weight = next(each for each in model.constants if each.name == "w")
    assert weight.values.tolist() == before.tolist()
    assert run(model) == [2, 3, 4]


def test_an_opset_is_never_lowered():
    model = simple()
    raise_opset(model, 11)
    assert model.opset == 17


def test_a_constant_of_ours_in_a_new_node():
    model = simple()
    weight = Constant("fresh", np.array([1, 2, 3], np.float32))
    (new,) = model.layer(op="Add", inputs=[model.outputs[0], weight], outputs=["out"])
    new.dtype, new.shape = np.float32, (3,)
    model.outputs = [new]
    assert run(model) == [3, 2, 7]


def test_a_constant_node_that_holds_what_another_held():
    nodes = [
        h.make_node("Constant", [], ["a"], value=tensor("", 1, 1, 1)),
        h.make_node("Constant", [], ["b"], value=tensor("", 2, 2, 2)),
        h.make_node("Add", ["x", "a"], ["s"]),
        h.make_node("Mul", ["s", "b"], ["y"]),
    ]
    model = load(nodes)
    first, second = model.constants
    second.values = first.held
    assert run(model) == [2, 3, 4]


def test_a_constant_node_after_the_body_that_holds_its_twin():
    body = h.make_graph(
        [h.make_node("Add", ["x", "own"], ["b"])], "body", [], [value("b")],
        [tensor("own", 1, 1, 1)],
    )  # fmt: skip
    nodes = [
        h.make_node("ReduceMax", ["x"], ["top"], keepdims=0),
        h.make_node("Cast", ["top"], ["go"], to=onnx.TensorProto.BOOL),
        h.make_node("If", ["go"], ["a"], then_branch=body, else_branch=body),
        h.make_node("Constant", [], ["late"], value=tensor("", 1, 1, 1)),
        h.make_node("Mul", ["a", "late"], ["y"]),
    ]
    model = load(nodes)
    (kept,) = model.constants
    for each in model.bodies():
        assert merge_constants(model, kept, each.constants[0])
    assert run(model) == [2, 3, 4]


def test_a_constant_node_after_the_reader_of_its_twin():
    nodes = [
        h.make_node("Constant", [], ["early"], value=tensor("", 2, 2, 2)),
        h.make_node("Add", ["x", "early"], ["a"]),
        h.make_node("Constant", [], ["late"], value=tensor("", 2, 2, 2)),
        h.make_node("Mul", ["a", "late"], ["y"]),
    ]
    model = load(nodes)
    early, late = model.constants
    assert merge_constants(model, late, early)
    assert run(model) == [6, 8, 10]


def test_an_initializer_of_another_shape_is_listed_as_it_is():
    proto = onnx.parser.parse_model("""
        <ir_version: 3, opset_import: ["" : 9]>
        g (float[2, 4] x, float[4, 3] w) => (float[2, M] y) { y = MatMul(x, w) }
        """)
    proto.graph.initializer.append(nh.from_array(np.ones((4, 3), np.float32), "w"))
    model = load_model(proto)
    (node,) = model.nodes
    node.inputs[1].values = np.ones((4, 2), np.float32)
    result = onnx.load_from_string(model_bytes(model))
    listed = {each.name: each.type.tensor_type.shape.dim for each in result.graph.input}
    assert [dim.dim_value for dim in listed["w"]] == [4, 2]
    onnx.checker.check_model(result, full_check=True)


def test_a_long_way_of_layout_operators_is_followed_once():
    nodes, name = [], "w"
    for place in range(40):
        nodes += [
            h.make_node("Concat", [name, name], [f"c{place}"], axis=0),
            h.make_node("Slice", [f"c{place}", "s", "e"], [f"s{place}"]),
        ]
        name = f"s{place}"
    nodes.append(h.make_node("MatMul", ["x", name], ["y"]))
    sizes = [nh.from_array(np.array([number]), key) for key, number in (("s", 0), ("e", 3))]
    model = load(nodes, [nh.from_array(np.eye(3, dtype=np.float32), "w"), *sizes])
    (weight,) = weights(model)
    assert (weight.name, weight.op_types, weight.unsuitable) == ("w", ("MatMul",), None)

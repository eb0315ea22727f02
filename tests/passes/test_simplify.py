"""Simplify: what is folded, what is left, and that the outputs stay."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from simplifying import built, conv_model, numbers, operators, same_outputs, simplified

from onnxcomp import Context, Settings, compress, load_model
from onnxcomp.graph import StoreValues, model_bytes, model_proto, store_of, weights
from onnxcomp.graph.values import TensorValues
from onnxcomp.passes import Cluster, Simplify
from onnxcomp.stores import Codebook, store_codes


def test_gates_of_a_recurrent_network_are_joined():
    gates = " ".join(
        f"{kind}{place} = Slice({kind}, at{start}, at{start + 8}, axes)"
        for kind in ("wi", "wh")
        for place, start in enumerate((0, 24, 8, 16))
    )
    text = f"""
    g (float[5, 2, 8] x) => (float[5, 1, 2, 8] y) {{
        {gates}
        ji = Concat <axis = 0> (wi0, wi1, wi2, wi3)
        jh = Concat <axis = 0> (wh0, wh1, wh2, wh3)
        ui = Unsqueeze(ji, axes)
        uh = Unsqueeze(jh, axes)
        y = LSTM <hidden_size = 8> (x, ui, uh)
    }}"""
    places = {f"at{place}": np.array([place]) for place in (0, 8, 16, 24, 32)}
    proto = built(text, wi=numbers(32, 8), wh=numbers(32, 8, seed=5), axes=np.array([0]), **places)
    result, verdicts = simplified(proto)
    assert operators(result.graph) == ["LSTM"]
    assert {each.bytes_after for each in verdicts.values()} == {4 * 32 * 8}
    same_outputs(proto, result, x=numbers(5, 2, 8))


def test_a_tied_weight_is_not_written_twice(models):
    proto = models["tied"].proto
    result, verdicts = simplified(proto)
    assert "Transpose" in operators(result.graph)
    assert {each.verdict for each in verdicts.values()} == {"skipped"}


def test_what_would_grow_is_not_folded():
    text = """
    g (float[64, 64] x) => (float[64, 64] y) {
        big = Expand(row, shape)
        ones = ConstantOfShape <value = float {1.0}> (shape)
        a = Add(x, big)
        y = Mul(a, ones)
    }"""
    proto = built(text, row=numbers(64), shape=np.array([64, 64]))
    result, _ = simplified(proto)
    assert result.ByteSize() <= proto.ByteSize()


def test_no_ops_duplicates_and_dead_nodes_go():
    text = """
    g (float[4, 40] x) => (float[4, 40] y) {
        i = Identity(x)
        d = Dropout(i)
        t = Transpose <perm = [1, 0]> (d)
        u = Transpose <perm = [1, 0]> (t)
        k = Cast <to = 1> (u)
        a = MatMul(k, w)
        b = MatMul(k, v)
        e = Tanh(k)
        f = Tanh(k)
        unused = Exp(k)
        s = Sum(a, b, e, f)
        y = Identity(s)
    }"""
    weight = numbers(40, 40)
    for opset in (11, 13):
        proto = built(text, opset, w=weight, v=weight, nowhere=numbers(8))
        result, verdicts = simplified(proto)
        assert sorted(operators(result.graph)) == ["MatMul", "MatMul", "Sum", "Tanh"]
        same_outputs(proto, result, x=numbers(4, 40))
        assert verdicts["v"].reason == "identical to w"
        assert verdicts["nowhere"].reason == "nothing read it"


def test_a_small_number_is_not_zero():
    text = "g (float[4] x) => (float[4] y) { s = Sub(x, x) a = Add(s, tiny) y = Log(a) }"
    proto = built(text, tiny=np.array(1e-9, np.float32))
    same_outputs(proto, simplified(proto)[0], x=numbers(4))


@pytest.mark.parametrize("op", ["RandomNormal <shape = [4]> ()", "Bernoulli(half)"])
def test_chance_is_neither_folded_nor_shared(op):
    text = f"g (float[4] x) => (float[4] y) {{ a = {op} b = {op} c = Sub(a, b) y = Add(x, c) }}"
    proto = built(text, half=np.full(4, 0.5, np.float32))
    result, _ = simplified(proto)
    assert operators(result.graph) == operators(proto.graph)


def test_a_store_is_kept():
    text = """
    g (float[3, 64] x) => (float[3, 64] y) {
        i = Identity(w)
        t = Transpose <perm = [1, 0]> (i)
        y = MatMul(x, t)
    }"""
    model = load_model(built(text, w=numbers(64, 64)))
    (weight,) = weights(model)
    codes = np.arange(64 * 64, dtype=np.uint8) % 16
    entries = Codebook(numbers(16)[:, None])
    store = store_codes(codes, entries, shape=(64, 64), dtype=weight.dtype, opset=17)
    weight.tensor.values = StoreValues(store)
    before = model_bytes(model)
    (verdict,) = Simplify().apply(model, Context())
    assert verdict.reason == "is kept in its store"
    (after,) = weights(load_model(model_bytes(model)))
    assert after.name == "w"
    assert store_of(after.tensor) is not None
    assert np.array_equal(after.load(), store.load())
    assert len(model_bytes(model)) < len(before)
    assert model.count_nodes() == 2


def test_clustered_then_simplified_keeps_every_store(models):
    model = load_model(models["convnet"].proto)
    Cluster().apply(model, Context())
    stored = {each.name for each in weights(model) if store_of(each.tensor) is not None}
    Simplify().apply(model, Context())
    assert stored == {each.name for each in weights(model) if store_of(each.tensor) is not None}


def test_data_that_nothing_is_folded_into_is_not_read(tmp_path, monkeypatch):
    text = """
    g (float[3, 64] x) => (float[3, 32] y) {
        t = Transpose <perm = [1, 0]> (turned)
        a = MatMul(x, t)
        b = Identity(a)
        y = MatMul(b, w)
    }"""
    proto = built(text, turned=numbers(64, 64), w=numbers(64, 32))
    path = tmp_path / "model.onnx"
    onnx.save_model(proto, path, save_as_external_data=True, location="data", size_threshold=0)
    model = load_model(path)
    held = {each.name: each.tensor.held for each in weights(model)}
    loaded, load = set(), TensorValues.load

    def noted(values):
        loaded.add(values.tensor.name)
        return load(values)

    monkeypatch.setattr(TensorValues, "load", noted)
    verdicts = {each.name: each.verdict for each in Simplify().apply(model, Context())}
    assert verdicts == {"turned": "changed", "w": "skipped"}
    assert (loaded & {"turned", "w"}) == {"turned"}
    assert {each.name: each.tensor.held for each in weights(model)}["w"] is held["w"]
    assert model.is_external
    result = model_proto(model)
    assert operators(result.graph) == ["MatMul", "MatMul"]
    same_outputs(onnx.load(path), result, x=numbers(3, 64))


def test_what_is_excluded_is_not_folded():
    proto = conv_model("Conv (x, w)", numbers(4, 6, 3, 3), 4)
    for options in ({"exclude": ("mean",)}, {"include": ("w", "gain", "shift")}):
        result, verdicts = simplified(proto, **options)
        assert operators(result.graph) == ["Conv", "BatchNormalization"]
        assert verdicts["mean"].reason == "was not selected by include and exclude"
        assert result == proto


def test_what_describes_the_model_stays(models):
    proto = onnx.ModelProto()
    proto.CopyFrom(models["convnet"].proto)
    proto.doc_string, proto.graph.doc_string, proto.domain = "of the model", "of the graph", "d"
    proto.graph.input[0].doc_string = "of the input"
    proto.graph.node[3].doc_string = "of the node"
    result, _ = simplified(proto)
    assert list(result.graph.input) == list(proto.graph.input)
    assert list(result.graph.output) == list(proto.graph.output)
    assert list(result.metadata_props) == list(proto.metadata_props)
    assert (result.doc_string, result.graph.doc_string) == ("of the model", "of the graph")
    assert (result.domain, result.ir_version) == ("d", proto.ir_version)
    assert list(result.opset_import) == list(proto.opset_import)
    assert "of the node" in [node.doc_string for node in result.graph.node]


def test_functions_and_words_and_sparse_tensors_survive():
    text = """
    g (float[3, 4] x) => (float[3, 4] y, string[2] words) {
        i = Identity(x)
        a = local.twice(i)
        b = MatMul(a, sparse)
        y = Identity(b)
        words = Identity(text)
    }
    <domain: "local", opset_import: ["" : 17]>
    twice (x) => (y) { i = Identity(x) y = Add(i, i) }"""
    proto = built(text.replace("(text)", "(said)"), said=np.array(["a", "b"], object))
    proto.opset_import.add(domain="local", version=1)
    values = numpy_helper.from_array(np.array([2, 3], np.float32), "sparse")
    indices = numpy_helper.from_array(np.array([0, 5]))
    proto.graph.sparse_initializer.append(onnx.helper.make_sparse_tensor(values, indices, [4, 4]))
    result, _ = simplified(proto)
    assert list(result.functions) == list(proto.functions)
    assert list(result.graph.sparse_initializer) == list(proto.graph.sparse_initializer)
    assert operators(result.graph)[:2] == ["twice", "MatMul"]


def test_nothing_is_left_for_a_second_run(models, tmp_path):
    for name in ("convnet", "recurrent", "if_bodies", "constant_nodes", "opset_9"):
        source = models[name].source(tmp_path)
        first = compress(source, [Simplify()], settings=Settings(bench=False, validation=False))
        data = first.to_bytes()
        second = compress(data, [Simplify()], settings=Settings(bench=False, validation=False))
        assert second.report.steps[0].status == "nothing"
        assert second.to_bytes() == data


def test_removed_nodes_are_told():
    text = "g (float[4] x) => (float[4] y) { a = Identity(x) b = Relu(a) y = Identity(b) }"
    done = compress(built(text), [Simplify()], settings=Settings(bench=False))
    (step,) = done.report.steps
    assert (step.status, step.reason) == ("applied", "2 of 3 nodes removed")


def test_a_graph_that_onnxscript_gives_up_on_is_told(monkeypatch):
    def give_up(*_arguments, **_options):
        raise RuntimeError("no\nidea")

    monkeypatch.setattr("onnxcomp_passes.simplify.simplify.optimize", give_up)
    proto = conv_model("Conv (x, w)", numbers(4, 6, 3, 3), 4, other=numbers(4))
    result, verdicts = simplified(proto)
    assert operators(result.graph) == ["Conv"]
    assert verdicts["other"].reason == "could not be optimized: no idea"


def test_an_input_with_a_default_is_not_folded():
    text = """
    g (float[3, 4] x) => (float[3, 4] y) {
        i = Identity(x)
        t = Transpose <perm = [1, 0]> (w)
        y = MatMul(i, t)
    }"""
    proto = built(text, w=numbers(4, 4), spare=numbers(4))
    for name, shape in (("w", [4, 4]), ("spare", [4])):
        proto.graph.input.append(onnx.helper.make_tensor_value_info(name, 1, shape))
    result, _ = simplified(proto)
    assert operators(result.graph) == ["Transpose", "MatMul"]
    assert list(result.graph.input) == list(proto.graph.input)
    assert {each.name for each in result.graph.initializer} == {"w", "spare"}


def test_what_is_given_out_and_must_stay_is_told():
    text = (
        "g (float[4, 4] x) => (float[4, 4] y, float[4, 4] w) { i = Identity(x) y = MatMul(i, w) }"
    )
    proto = built(text, w=numbers(4, 4), v=numbers(2))
    result, verdicts = simplified(proto, exclude=("w",))
    assert verdicts["w"].reason == (
        "could not be optimized: 'w' is an output, and nothing may be folded of it"
    )
    same_outputs(proto, result, x=numbers(4, 4))


@pytest.mark.parametrize("size", ["2", "n"])
def test_an_output_that_is_constant_keeps_its_declaration(size):
    text = f"""
    g (float[3, 4] x) => (float[3, 4] y, int64[{size}] s) {{
        s = Shape(x)
        i = Identity(x)
        y = Tanh(i)
    }}"""
    proto = built(text)
    result, _ = simplified(proto)
    assert list(result.graph.output) == list(proto.graph.output)
    assert ("Shape" in operators(result.graph)) == (size == "n")
    same_outputs(proto, result, x=numbers(3, 4))

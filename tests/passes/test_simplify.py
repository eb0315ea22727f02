"""Simplify: what is folded, what is left, and that the outputs stay."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxcomp import Context, Settings, compress, load_model
from onnxcomp.graph import StoreValues, model_bytes, model_proto, store_of, weights
from onnxcomp.graph.values import TensorValues
from onnxcomp.runtime import open_session
from onnxcomp.stores import Codebook, store_codes
from passes import Cluster, Simplify

HEADER = '<ir_version: 8, opset_import: ["" : {opset}]>'
NORMALISE = "BatchNormalization <epsilon = 0.01> ({}, gain, shift, mean, variance)"


def built(text, opset=17, **tensors):
    proto = onnx.parser.parse_model(HEADER.format(opset=opset) + text)
    proto.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(values), name) for name, values in tensors.items()
    )
    return proto


def numbers(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape, np.float32)


def norm(channels):
    return {
        "gain": 1 + numbers(channels, seed=1),
        "shift": numbers(channels, seed=2),
        "mean": numbers(channels, seed=3),
        "variance": np.square(numbers(channels, seed=4)),
    }


def simplified(proto, **options):
    model = load_model(proto)
    verdicts = Simplify(**options).apply(model, Context())
    return model_proto(model), {each.name: each for each in verdicts}


def run(proto, feed):
    session = open_session(proto.SerializeToString(), optimize=False, threads=1)
    return list(session.run(feed).values())


def same_outputs(proto, result, **feed):
    onnx.checker.check_model(result, full_check=True)
    for one, other in zip(run(proto, feed), run(result, feed), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5 * np.abs(one).max())


def operators(graph):
    return [node.op_type for node in graph.node if node.op_type != "Constant"]


def conv_model(layer, weight, channels, opset=17, **more):
    text = f"""
    g (float[1, 6, 5, 5] x) => (float[N, C, H, W] y) {{
        c = {layer}
        y = {NORMALISE.format("c")}
    }}"""
    return built(text, opset, w=weight, **norm(channels), **more)


@pytest.mark.parametrize("opset", [11, 13, 14, 17])
@pytest.mark.parametrize(
    ("layer", "weight", "bias"),
    [
        ("Conv (x, w)", (4, 6, 3, 3), None),
        ("Conv (x, w, b)", (4, 6, 3, 3), 4),
        ("Conv <group = 3> (x, w, b)", (6, 2, 3, 3), 6),
        ("ConvTranspose (x, w)", (6, 4, 2, 2), None),
        ("ConvTranspose <group = 3, strides = [2, 2]> (x, w, b)", (6, 2, 2, 2), 6),
    ],
)
def test_normalisation_goes_into_convolutions(layer, weight, bias, opset):
    channels = weight[1] * 3 if "Transpose <" in layer else weight["Transpose" in layer]
    more = {} if bias is None else {"b": numbers(bias)}
    proto = conv_model(layer, numbers(*weight), channels, opset, **more)
    result, verdicts = simplified(proto)
    assert operators(result.graph) == [layer.split()[0]]
    same_outputs(proto, result, x=numbers(1, 6, 5, 5))
    assert verdicts["w"].reason == "BatchNormalization folded into it"
    assert verdicts["gain"].reason == "folded away with its BatchNormalization"
    assert verdicts["gain"].bytes_after == 0
    assert list(result.graph.output) == list(proto.graph.output)


@pytest.mark.parametrize(
    ("gemm", "weight", "bias"),
    [
        ("Gemm (x, w)", (6, 4), None),
        ("Gemm <transB = 1, alpha = 0.5, beta = 3.0> (x, w, b)", (4, 6), (4,)),
        ("Gemm <beta = 2.0> (x, w, b)", (6, 4), (1, 4)),
        ("Gemm (x, w, b)", (6, 4), ()),
    ],
)
def test_normalisation_goes_into_gemm(gemm, weight, bias):
    text = f"g (float[3, 6] x) => (float[3, 4] y) {{ c = {gemm} y = {NORMALISE.format('c')} }}"
    more = {} if bias is None else {"b": numbers(*bias)}
    proto = built(text, w=numbers(*weight), **norm(4), **more)
    result, _ = simplified(proto)
    assert operators(result.graph) == ["Gemm"]
    same_outputs(proto, result, x=numbers(3, 6))


def test_a_bias_for_each_sample_stays():
    text = (
        f"g (float[3, 6] x) => (float[3, 4] y) {{ c = Gemm(x, w, b) y = {NORMALISE.format('c')} }}"
    )
    proto = built(text, w=numbers(6, 4), b=numbers(3, 4), **norm(4))
    assert "BatchNormalization" in operators(simplified(proto)[0].graph)


def test_chains_and_shared_biases():
    text = f"""
    g (float[1, 4, 5, 5] x) => (float[1, 4, 5, 5] y) {{
        c = Conv (x, w, b)
        n = {NORMALISE.format("c")}
        m = {NORMALISE.format("n")}
        r = Relu(m)
        d = Conv (r, v, b)
        y = {NORMALISE.format("d")}
    }}"""
    tensors = {"w": numbers(4, 4, 1, 1), "v": numbers(4, 4, 1, 1, seed=9), "b": numbers(4)}
    proto = built(text, **tensors, **norm(4))
    result, _ = simplified(proto)
    assert operators(result.graph) == ["Conv", "Relu", "Conv"]
    same_outputs(proto, result, x=numbers(1, 4, 5, 5))


@pytest.mark.parametrize(
    "body",
    [
        "c = Conv (x, w) d = Conv (x, w) n = NORM e = Add(d, n) y = Relu(e)",
        "c = Conv (x, w) n = NORM y = Add(c, n)",
        "c = Conv (x, w) n = NORM d = Relu(c) e = Mul(d, n) y = Relu(e)",
        "c = Conv (x, w) n, m, v = TRAIN y = Relu(n)",
        "v = Abs(x) w = Slice(v, from, to) c = Conv(x, w) n = NORM y = Relu(n)",
    ],
    ids=["shared weight", "other reader", "two readers", "training", "computed weight"],
)
def test_normalisation_that_stays(body):
    train = "BatchNormalization <training_mode = 1> (c, gain, shift, mean, variance)"
    body = body.replace("NORM", NORMALISE.format("c")).replace("TRAIN", train)
    text = f"g (float[4, 4, 1, 1] x) => (float[4, 4, 1, 1] y) {{ {body} }}"
    own = (
        {"from": np.array([0]), "to": np.array([4])}
        if "Slice" in body
        else {"w": numbers(4, 4, 1, 1)}
    )
    proto = built(text, **own, **norm(4))
    result, _ = simplified(proto)
    assert "BatchNormalization" in operators(result.graph)
    same_outputs(proto, result, x=numbers(4, 4, 1, 1))


def test_a_convolution_that_is_an_output_stays():
    text = f"""
    g (float[1, 4, 5, 5] x) => (float[1, 4, 5, 5] c, float[1, 4, 5, 5] y) {{
        c = Conv (x, w)
        y = {NORMALISE.format("c")}
    }}"""
    proto = built(text, w=numbers(4, 4, 1, 1), **norm(4))
    result, verdicts = simplified(proto)
    assert result == onnx.load_from_string(model_bytes(load_model(proto)))
    assert {each.verdict for each in verdicts.values()} == {"skipped"}


def in_branches():
    text = f"""
    g (float[1, 4, 5, 5] x, bool flag) => (float[1, 4, 5, 5] y) {{
        y = If (flag) <
            then_branch = one () => (float[1, 4, 5, 5] a) {{
                u = Transpose <perm = [1, 0, 2, 3]> (w)
                c = Conv (x, u)
                a = {NORMALISE.format("c")}
            }},
            else_branch = other () => (float[1, 4, 5, 5] b) {{ d = Conv (x, w) b = Relu(d) }}
        >
    }}"""
    proto = built(text, **norm(4))
    for place, attribute in enumerate(proto.graph.node[0].attribute):
        weight = numbers(4, 4, 1, 1, seed=place)
        attribute.g.initializer.append(numpy_helper.from_array(weight, "w"))
    return proto


def test_branches_are_simplified():
    proto = in_branches()
    result, _ = simplified(proto)
    bodies = [attribute.g for attribute in result.graph.node[0].attribute]
    assert [operators(body) for body in bodies] == [["Conv"], ["Conv", "Relu"]]
    for flag in (True, False):
        same_outputs(proto, result, x=numbers(1, 4, 5, 5), flag=np.array(flag))


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

    monkeypatch.setattr("passes.simplify.simplify.optimize", give_up)
    proto = conv_model("Conv (x, w)", numbers(4, 6, 3, 3), 4, other=numbers(4))
    result, verdicts = simplified(proto)
    assert operators(result.graph) == ["Conv"]
    assert verdicts["other"].reason == "onnxscript gave up: no idea"

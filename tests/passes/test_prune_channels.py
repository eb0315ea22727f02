"""What is removed, what makes up for it, and what that costs: on models from a few words."""

import json
import re

import numpy as np
import onnx
import pytest
from quantizing import (
    CONVNET,
    IMAGES,
    built,
    context_of,
    feeds_of,
    matrix,
    numbers,
    run,
    snr,
    weight,
)

from onnxcomp import Settings, compress, load_model
from onnxcomp.errors import OptionError, PassError
from onnxcomp.graph import copy_model, model_bytes
from onnxcomp.passes import PruneChannels
from onnxcomp.pipeline import Context, parse_recipe
from onnxcomp.recovery import held_out_error
from onnxcomp.statistics import layers, observe
from onnxcomp.testing.plain_models import shared_bias
from onnxcomp_passes.prune_channels import find_groups, repairing, timing
from onnxcomp_passes.prune_channels.macs import work_of
from onnxcomp_passes.prune_channels.shapes import measure

TWINS = built(
    """(float[N,12] x) => (float[N,5] y) {
        a = Gemm <transB = 1> (x, w1, b1)  r = Relu(a)  y = Gemm <transB = 1> (r, w2) }""",
    {
        "w1": np.tile(weight(16, 12), (2, 1)),
        "b1": np.tile(numbers(16), 2),
        "w2": weight(5, 32),
    },
)
ROWS = feeds_of(12, x=(40, 12))
MLP = built(
    """(float[N,L,24] x) => (float[N,L,24] y) {
        a = MatMul(x, w1)  b = Add(a, b1)  r = Relu(b)  c = MatMul(r, w2)  y = Add(c, x) }""",
    {"w1": matrix(24, 40), "b1": numbers(40), "w2": matrix(40, 24)},
)
TOKENS = feeds_of(12, x=(2, 9, 24))


def pruned(proto, feeds=None, context=None, **options):
    """Return the file of a pruned model, and the verdicts by name."""
    model = load_model(proto)
    context = context or context_of(proto, feeds)
    verdicts = PruneChannels(**options).apply(model, context)
    result = model_bytes(model)
    onnx.checker.check_model(result, full_check=True)
    return result, {each.name: each for each in verdicts}


def shapes(result):
    return {
        each.name: tuple(each.dims) for each in onnx.load_from_string(result).graph.initializer
    }


def operations(proto):
    model = load_model(proto)
    work = work_of(model, [], measure(model, IMAGES[0]).shapes)
    return float(work.total(np.zeros(0)))


def test_what_others_say_too_goes_for_nothing():
    result, verdicts = pruned(TWINS, ROWS, ratio=0.5)
    assert shapes(result)["w1"] == (16, 12)
    assert shapes(result)["w2"] == (5, 16)
    assert snr(run(TWINS, ROWS), run(result, ROWS)) > 35
    assert verdicts["w1"].reason == "16 of 32 outputs kept"
    assert verdicts["w2"].reason == "16 of 32 inputs kept, refitted, mean corrected"
    assert verdicts["b1"].bytes_after == 64
    blind, _ = pruned(TWINS, ratio=0.5)
    assert snr(run(TWINS, ROWS), run(blind, ROWS)) < 15


@pytest.mark.parametrize(
    ("proto", "feeds"),
    [(CONVNET, IMAGES), (MLP, TOKENS), (TWINS, ROWS)],
    ids=["conv", "mlp", "fc"],
)
def test_repair_helps(proto, feeds):
    wanted = run(proto, feeds)
    found = {
        criterion: snr(wanted, run(pruned(proto, given, ratio=0.4, criterion=criterion)[0], feeds))
        for criterion, given in (("second-order", feeds), ("magnitude", None))
    }
    assert found["second-order"] > found["magnitude"] + 2


def test_a_repair_that_does_not_help_is_not_made():
    context = context_of(CONVNET, IMAGES)
    model = load_model(CONVNET)
    statistics = observe(model, context.samples)
    for layer in (each for each in layers(model) if each.uses):
        inputs = statistics.of(layer)
        support = np.ones(layer.form.matrices[::2], bool)
        support[:, ::3] = False
        values = layer.weight.load()
        found = repairing.repaired(layer, values, inputs, support)
        weights = layer.form.to_matrices(values)
        none = np.zeros_like(found.shift)
        before = held_out_error(weights, weights * support[:, None], none, inputs.held_out)
        after = held_out_error(weights, found.weights, found.shift, inputs.held_out)
        assert after <= before
        assert not found.weights[np.broadcast_to(~support[:, None], found.weights.shape)].any()


def test_statistics_do_instead_of_data():
    model = load_model(TWINS)
    statistics = observe(model, context_of(TWINS, ROWS).samples)
    result, verdicts = pruned(TWINS, context=Context(statistics=statistics), ratio=0.5)
    assert snr(run(TWINS, ROWS), run(result, ROWS)) > 30
    assert "refitted" in verdicts["w2"].reason


@pytest.mark.parametrize("scope", ["uniform", "global"])
@pytest.mark.parametrize("share", [0.8, 0.5])
def test_operations_are_kept_within_a_share(scope, share):
    result, _ = pruned(CONVNET, IMAGES, macs=share, scope=scope, round_to=1)
    left = operations(onnx.load_from_string(result)) / operations(CONVNET)
    assert share - 0.1 < left <= share


def test_counts_are_rounded_and_leave_the_least():
    result, _ = pruned(CONVNET, IMAGES, macs=0.4)
    assert all(each[0] % 8 == 0 for each in map(shapes(result).get, ("w1", "w2", "w3")))
    result, _ = pruned(CONVNET, IMAGES, ratio=0.3, round_to=5)
    assert shapes(result)["w3"][0] % 5 == 0
    result, _ = pruned(CONVNET, IMAGES, macs=0.5, least=0.5, round_to=1)
    assert all(shapes(result)[name][0] >= 8 for name in ("w1", "w2", "w3"))


def test_a_ratio_of_all_channels_together():
    result, _ = pruned(CONVNET, IMAGES, ratio=0.25, scope="global", round_to=1)
    groups, _ = find_groups(load_model(CONVNET))
    left, _ = find_groups(load_model(result))
    whole = sum(group.count for group in groups)
    assert sum(group.count for group in left) == whole - round(0.25 * whole)


def test_operations_are_counted():
    images = 2 * 8 * 8
    inner = 2 * 6 * 6
    expected = images * 16 * 16 * 9 * 2 + inner * 32 * 16 * 9 + 2 * 10 * 32
    assert operations(CONVNET) == expected


def test_predicted_operations_are_those_of_the_result():
    model = load_model(MLP)
    groups, _ = find_groups(model, TOKENS[0])
    work = work_of(model, groups, measure(model, TOKENS[0]).shapes)
    (group,) = groups
    assert group.count == 40
    assert float(work.total(np.array([10]))) == 18 * 24 * 30 * 2


def test_a_weight_says_why_it_stays():
    _, verdicts = pruned(MLP, TOKENS, ratio=0.3, exclude=("w2",))
    assert {each.verdict for each in verdicts.values()} == {"skipped"}
    assert verdicts["w1"].reason == "goes together with 'w2', which was not selected"
    assert verdicts["w2"].reason == "was not selected by include and exclude"
    _, verdicts = pruned(MLP, TOKENS, ratio=0.3, round_to=40)
    assert verdicts["w1"].reason == "keeps all its channels: none was chosen to go"
    alone = built("(float[N,8] x) => (float[N,8] y) { y = MatMul(x, w) }", {"w": matrix(8, 8)})
    _, verdicts = pruned(alone, ratio=0.3)
    assert verdicts["w"].reason == "its channels stay: is an output"


def test_latency_is_measured_and_written_down(monkeypatch):
    shares = []

    def ratio(_source, result, _samples):
        shares.append(operations(onnx.load_from_string(result)) / operations(CONVNET))
        return shares[-1] + 0.1

    monkeypatch.setattr(timing, "_ratio", ratio)
    settings = Settings(bench=False)
    options = {"latency": 0.7, "round_to": 1}
    done = compress(CONVNET, [PruneChannels(**options)], data=IMAGES, settings=settings)
    assert 0.5 < operations(onnx.load_from_string(done.to_bytes())) / operations(CONVNET) <= 0.6
    (decided,) = parse_recipe(json.loads(done.graph.metadata["onnxcomp.recipe"]))
    assert decided.latency is None
    assert decided.macs <= 0.6
    again = compress(CONVNET, [decided], data=IMAGES, settings=settings)
    assert again.to_bytes() == done.to_bytes()


def test_a_latency_that_cannot_be_had(monkeypatch):
    monkeypatch.setattr(timing, "_ratio", lambda *_: 1.0)
    with pytest.raises(OptionError, match=r"^prune-channels: latency = 0\.5 cannot be had; allow"):
        pruned(CONVNET, IMAGES, latency=0.5)


def test_what_cannot_be_had_is_said():
    with pytest.raises(OptionError) as raised:
        pruned(CONVNET, macs=0.01)
    message = str(raised.value)
    start = "prune-channels: macs = 0.01 cannot be had: the least is 0."
    assert message.startswith(start)
    least = float(message.removeprefix(start[:-2]).split()[0])
    result, _ = pruned(CONVNET, macs=least)
    assert operations(onnx.load_from_string(result)) <= least * operations(CONVNET)
    with pytest.raises(OptionError, match=r"ratio = 0\.8 cannot be had: the most is 0\.\d+ \("):
        pruned(CONVNET, ratio=0.8, scope="global", round_to=16)


@pytest.mark.parametrize("feeds", [None, feeds_of(6, x=(4, 8))], ids=["blind", "data"])
def test_where_nothing_can_go(feeds):
    alone = built("(float[N,8] x) => (float[N,8] y) { y = MatMul(x, w) }", {"w": matrix(8, 8)})
    with pytest.raises(OptionError, match=r"macs = 0\.5 cannot be had: the least is 1\.0 \("):
        pruned(alone, feeds, macs=0.5)
    _, verdicts = pruned(alone, feeds, ratio=0.3, scope="global")
    assert verdicts["w"].verdict == "skipped"


def test_a_copy_is_pruned_alike():
    model = load_model(CONVNET)
    copied = copy_model(model)
    context = context_of(CONVNET, IMAGES)
    PruneChannels(macs=0.6).apply(model, context)
    PruneChannels(macs=0.6).apply(copied, context)
    assert model_bytes(model) == model_bytes(copied)


BLOCK = """
    q{0} = MatMul(x{0}, wq{0})  qb{0} = Add(q{0}, zeros)  qr{0} = Reshape(qb{0}, heads)
    k{0} = MatMul(x{0}, wk{0})  kb{0} = Add(k{0}, zeros)  kr{0} = Reshape(kb{0}, heads)
    v{0} = MatMul(x{0}, wv{0})  vb{0} = Add(v{0}, zeros)  vr{0} = Reshape(vb{0}, heads)
    qt{0} = Transpose <perm = [0, 2, 1, 3]> (qr{0})
    kt{0} = Transpose <perm = [0, 2, 3, 1]> (kr{0})
    vt{0} = Transpose <perm = [0, 2, 1, 3]> (vr{0})
    s{0} = MatMul(qt{0}, kt{0})  p{0} = Softmax(s{0})  o{0} = MatMul(p{0}, vt{0})
    ot{0} = Transpose <perm = [0, 2, 1, 3]> (o{0})  oj{0} = Reshape(ot{0}, joined)
    z{0} = MatMul(oj{0}, wo{0})  zb{0} = Add(z{0}, zeros)  r{0} = Add(zb{0}, x{0})
    n{0} = LayerNormalization(r{0}, gain, zeros)
    f{0} = MatMul(n{0}, w1{0})  fb{0} = Add(f{0}, wide)  g{0} = Relu(fb{0})
    h{0} = MatMul(g{0}, w2{0})  hb{0} = Add(h{0}, zeros)  x{1} = Add(hb{0}, n{0})
"""


def encoder(layers=2, width=16, heads=4):
    """A transformer whose equal biases and gains are written once."""
    tensors = {
        "zeros": np.zeros(width, np.float32),
        "wide": np.zeros(4 * width, np.float32),
        "gain": np.ones(width, np.float32),
        "heads": np.array([0, 0, heads, width // heads]),
        "joined": np.array([0, 0, width]),
    }
    for layer in range(layers):
        for seed, name in enumerate(("wq", "wk", "wv", "wo")):
            tensors[f"{name}{layer}"] = matrix(width, width, seed=10 * layer + seed)
        tensors[f"w1{layer}"] = matrix(width, 4 * width, seed=layer)
        tensors[f"w2{layer}"] = matrix(4 * width, width, seed=layer)
    body = "".join(BLOCK.format(layer, layer + 1) for layer in range(layers))
    return built(
        f"(float[N,L,{width}] x0) => (float[N,L,{width}] x{layers}) {{ {body} }}", tensors
    )


@pytest.mark.parametrize("has_data", [True, False])
def test_layers_that_share_a_bias_lose_channels_each_for_itself(has_data):
    proto = encoder()
    feeds = feeds_of(12, x0=(2, 9, 16)) if has_data else None
    result, verdicts = pruned(proto, feeds, ratio=0.5, round_to=1)
    found = shapes(result)
    for layer in range(2):
        assert found[f"w1{layer}"] == (16, 32)
        assert found[f"w2{layer}"] == (32, 16)
        assert verdicts[f"w1{layer}"].reason.startswith("32 of 64 outputs kept")
        assert found[f"wv{layer}"][1] == found[f"wo{layer}"][0] < 16
    assert set(verdicts) == {each.name for each in proto.graph.initializer} - {"heads", "joined"}
    claimed = sum(each.bytes_before - each.bytes_after for each in verdicts.values())
    saved = len(proto.SerializeToString()) - len(result)
    assert abs(claimed - saved) < 0.1 * saved
    # What is left of a bias of zeros is one again where nothing corrected it.
    if not has_data:
        assert sum(name.startswith("wide") for name in found) == 1


def test_what_stays_whole_shares_its_bias_as_before():
    proto = encoder()
    model = load_model(proto)
    PruneChannels(exclude=("*",)).apply(model, context_of(proto, None))
    assert model_bytes(model) == model_bytes(load_model(proto))


def test_a_group_that_is_not_found_again_is_an_error(monkeypatch):
    monkeypatch.setattr("onnxcomp_passes.prune_channels.prune_channels.split", lambda _: [])
    with pytest.raises(PassError, match="channels of 'w2' cannot be cut: they are no group any"):
        pruned(shared_bias().proto, feeds_of(12, x=(8, 16)), ratio=0.5)


def test_a_claim_that_the_file_does_not_bear_out_is_undone(monkeypatch):
    proto = encoder(width=64)
    monkeypatch.setattr("onnxcomp_passes.prune_channels.prune_channels.cut", lambda *_: None)
    (step,) = compress(
        proto, [PruneChannels(ratio=0.5)], settings=Settings(bench=False)
    ).report.steps
    assert step.status == "rolled_back"
    assert re.fullmatch(
        r"the pass says that it saves \d+ bytes, but the file has -?\d+ fewer", step.reason
    )

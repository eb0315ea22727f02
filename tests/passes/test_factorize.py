"""What is factorized, how far, and whether it pays."""

import re

import numpy as np
import onnx
import pytest
from factorizing import factorized, inferred, planned
from quantizing import CONVNET, IMAGES, built, context_of, matrix, numbers, run, snr, weight

from onnxcomp import Context, compress, load_model
from onnxcomp.errors import OptionError, ReachError
from onnxcomp.graph import model_bytes
from onnxcomp.passes import Cluster, Factorize, Quantize
from onnxcomp.statistics import observe
from onnxcomp_passes.factorize.timing import Stopwatch

BODY = """(float[N, 48] x) => (float[N, 40] y) {
    a = MatMul(x, w1)  b = Relu(a)  c = Gemm <transB = 1> (b, w2, c2)  d = Relu(c)
    y = MatMul(d, w3) }"""
DENSE = built(
    BODY,
    {
        "w1": matrix(48, 64),
        "w2": weight(64, 64),
        "c2": numbers(64),
        "w3": matrix(64, 40, seed=1),
    },
)


def correlated(count, seed):
    """Return feeds of which a few directions hold most."""
    mixing = numbers(48, 48, seed=3) * np.geomspace(1, 0.02, 48, dtype=np.float32)[:, None]
    return [{"x": numbers(32, 48, seed=[seed, place]) @ mixing + 0.3} for place in range(count)]


FEEDS, UNSEEN = correlated(20, 0), correlated(8, 1)


@pytest.fixture
def speeds(monkeypatch):
    """Speedups that are found instead of measuring: a number, or a function of site and choice."""

    def set_to(found):
        calls = []

        def speedup(self, site, choice):
            del self
            calls.append((site.weight.name, choice))
            return found(site, choice) if callable(found) else found

        monkeypatch.setattr(Stopwatch, "speedup", speedup)
        return calls

    return set_to


def quality(proto, result, feeds):
    return snr(run(proto, feeds), run(result, feeds))


def test_data_makes_it_closer():
    plain, _ = factorized(DENSE, rank_ratio=0.6)
    fitted, verdicts = factorized(DENSE, context_of(DENSE, FEEDS), rank_ratio=0.6)
    assert {each.verdict for each in verdicts.values() if each.name != "c2"} == {"changed"}
    assert verdicts["w2"].reason.startswith("two factors of rank 19 (of 64); fitted to ")
    assert quality(DENSE, fitted, UNSEEN) > quality(DENSE, plain, UNSEEN) + 6


def test_layers_in_sequence_make_up_for_those_before():
    context = context_of(DENSE, FEEDS)
    at_once, _ = factorized(DENSE, context, rank_ratio=0.5, sequential=False)
    in_sequence, verdicts = factorized(DENSE, context, rank_ratio=0.5)
    assert "fitted to what it now gets" in verdicts["w3"].reason
    assert quality(DENSE, in_sequence, UNSEEN) > quality(DENSE, at_once, UNSEEN)


def test_statistics_do_as_well_as_samples_for_layers_at_once():
    context = context_of(DENSE, FEEDS)
    known = Context(statistics=observe(load_model(DENSE), context.samples))
    first, _ = factorized(DENSE, context, rank_ratio=0.5, sequential=False)
    second, _ = factorized(DENSE, known, rank_ratio=0.5)
    assert first == second


def test_energy_is_kept():
    model = load_model(DENSE)
    Factorize(energy=0.8, allow="size", min_elements=1).apply(model, Context())
    weights = {each.name: onnx.numpy_helper.to_array(each) for each in DENSE.graph.initializer}
    found = {each.name: onnx.numpy_helper.to_array(each) for each in proto_of(model).initializer}
    for name in ("w1", "w2", "w3"):
        values = np.square(np.linalg.svd(weights[name], compute_uv=False))
        left, right = (found[f"{name}.low_rank.{place}"] for place in (0, 1))
        product = right @ left if name == "w2" else left @ right
        rank = min(left.shape)
        kept = 1 - np.sum(np.square(weights[name] - product)) / values.sum()
        assert kept >= 0.8 - 1e-6
        assert values[: rank - 1].sum() / values.sum() < 0.8


def proto_of(model):
    return onnx.load_from_string(model_bytes(model)).graph


@pytest.mark.parametrize("has_data", [True, False])
def test_size_ratio(has_data):
    context = context_of(DENSE, FEEDS) if has_data else Context()
    before = DENSE.ByteSize()
    result, verdicts = factorized(DENSE, context, size_ratio=1.3)
    assert len(result) <= before / 1.3
    assert any(each.verdict == "changed" for each in verdicts.values())


def test_macs_are_kept_where_they_matter():
    decided = []
    context = context_of(CONVNET, IMAGES, decide=decided.extend)
    options = {"macs": 0.6, "rank_multiple": 2}
    result, _ = factorized(CONVNET, context, **options)
    assert counted(result) <= 0.6 * counted(CONVNET.SerializeToString())
    (replayed,) = decided
    assert (replayed.macs, replayed.rank_multiple) == (None, 2)
    again, _ = factorized(CONVNET, context_of(CONVNET, IMAGES), plan=replayed.plan)
    assert again == result


def counted(model):
    """Count the multiplications of a convolutional network for one sample."""
    proto = onnx.shape_inference.infer_shapes(onnx.load_from_string(model)).graph
    shapes = {
        info.name: [each.dim_value for each in info.type.tensor_type.shape.dim]
        for info in (*proto.value_info, *proto.output)
    }
    sizes = {each.name: np.prod(each.dims) for each in proto.initializer}
    spread = {"Conv": lambda node: np.prod(shapes[node.output[0]][2:]), "Gemm": lambda _: 1}
    return sum(
        sizes[node.input[1]] * spread[node.op_type](node)
        for node in proto.node
        if node.op_type in spread
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"macs": 0.001}, r"factorize: macs = 0\.001 cannot be reached; 0\.\d+ can \(allow "),
        (
            {"size_ratio": 1000.0},
            r"factorize: a file of \d+ bytes cannot be reached; the smallest has about \d+ \(all",
        ),
    ],
)
def test_budgets_that_cannot_be_kept(options, message):
    with pytest.raises(OptionError, match=message):
        factorized(DENSE, context_of(DENSE, FEEDS), **options)


def test_what_is_said_to_be_in_reach_is():
    options = {"rank_multiple": 16, "kinds": ("channel",)}
    with pytest.raises(ReachError) as refused:
        factorized(CONVNET, context_of(CONVNET, IMAGES), macs=0.01, **options)
    least = float(re.search(r"(0\.\d+) can \(", str(refused.value))[1]) + 1e-3
    assert refused.value.nearest == pytest.approx(least, abs=2e-3)
    context = context_of(CONVNET, IMAGES)
    result, verdicts = factorized(CONVNET, context, macs=least, **options)
    assert counted(result) <= least * counted(CONVNET.SerializeToString())
    assert "has no rank" in verdicts["w1"].reason


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"rank_ratio": 0.5, "macs": 0.5},
            "factorize: rank_ratio and macs exclude each other; give one",
        ),
        (
            {"plan": ("w1=pear:3",)},
            "factorize: plan = 'w1=pear:3': must be GLOB=KIND:RANK with KIND out of pair, channel",
        ),
        ({"plan": ("w1=pair:0",)}, "factorize: plan = 'w1=pair:0': must be GLOB=KIND:RANK"),
        ({"plan": ("pair:3",)}, "factorize: plan = 'pair:3': must be GLOB=KIND:RANK"),
        ({"rank_ratio": 1.5}, "factorize: rank_ratio = 1.5: input should be less than or equal"),
    ],
)
def test_options_that_mean_nothing(options, message):
    with pytest.raises(OptionError, match=re.escape(message)):
        Factorize.model_validate(options)


def test_plan():
    plan = ("w1=pair:5", "w[23]=pair:200", "w1=pair:6")
    _, verdicts = planned(DENSE, *plan)
    assert verdicts["w1"].reason == "two factors of rank 5 (of 48)"
    assert verdicts["w2"].reason == "loses nothing from rank 64 on; pair:200 has a higher one"
    _, verdicts = planned(DENSE, "w1=channel:5")
    assert verdicts["w1"].reason == "cannot become channel"
    assert verdicts["w2"].reason == "is not in the plan"
    _, verdicts = factorized(DENSE, plan=("w*=pair:40",))
    assert re.fullmatch(r"pair:40 would take 1\d\d% of the bytes", verdicts["w1"].reason)


def test_what_is_not_faster_stays(speeds):
    speeds(1.04)
    context = context_of(CONVNET, IMAGES)
    _, verdicts = factorized(CONVNET, context, rank_ratio=0.5, allow="both", rank_multiple=2)
    assert {each.verdict for each in verdicts.values()} == {"skipped"}
    assert re.fullmatch(
        r"channel:6 would take \d\d% of the bytes and be 1.04 times as fast \(asked for is 1.1\); "
        r"spatial:12 .* times as fast .*; tucker:\d+ .* times as fast .*",
        verdicts["w1"].reason,
    )


@pytest.mark.parametrize("allow", ["speed", "both"])
def test_what_was_measured_replays_without_measuring(speeds, allow):
    speeds(lambda site, choice: 2.0 if choice.kind == "spatial" else len(site.weight.shape) / 4)
    decided = []
    context = context_of(CONVNET, IMAGES, decide=decided.extend)
    options = {"rank_ratio": 0.5, "allow": allow, "rank_multiple": 2}
    result, verdicts = factorized(CONVNET, context, **options)
    changed = [each.name for each in verdicts.values() if each.verdict == "changed"]
    assert changed == ["w1", "w2", "w3"]
    (replayed,) = decided
    assert replayed.plan == ("w1=spatial:12", "w2=spatial:12", "w3=spatial:16")
    assert replayed.rank_ratio is None
    calls = speeds(0.0)
    model = load_model(CONVNET)
    replayed.apply(model, context_of(CONVNET, IMAGES))
    assert model_bytes(model) == result
    assert not calls


def test_a_budget_is_kept_with_what_is_faster(speeds):
    speeds(lambda site, choice: 0.5 if choice.kind != "channel" else len(site.weight.shape) / 2)
    context = context_of(CONVNET, IMAGES)
    options = {"macs": 0.7, "allow": "both", "rank_multiple": 2}
    result, verdicts = factorized(CONVNET, context, **options)
    changed = [each for each in verdicts.values() if each.verdict == "changed"]
    assert changed
    assert all(each.reason.startswith("channel") for each in changed)
    assert counted(result) <= 0.7 * counted(CONVNET.SerializeToString())


def test_layers_are_really_timed():
    wide = built(
        "(float[N, 512] x) => (float[N, 512] y) { y = MatMul(x, w) }", {"w": matrix(512, 512)}
    )
    context = context_of(wide, [{"x": numbers(64, 512)}])
    _, verdicts = factorized(wide, context, rank_ratio=0.2, allow="both")
    assert verdicts["w"].verdict == "changed"
    _, verdicts = factorized(wide, Context(), rank_ratio=0.2, allow="both")
    assert verdicts["w"].verdict == "changed"


BRANCHES = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N, 512] x, bool which) => (float[N, 512] y) {
    a = Relu(x)
    y = If (which) <
        then_branch = one () => (float[N, 512] b) { b = MatMul(a, w) },
        else_branch = other () => (float[N, 512] c) { c = Relu(x) }>
}"""


def test_layers_in_branches_are_timed():
    proto = onnx.parser.parse_model(BRANCHES)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(matrix(512, 512), "w"))
    context = context_of(proto, [{"x": numbers(64, 512), "which": np.ones((), bool)}])
    result, verdicts = factorized(proto, context, rank_ratio=0.2, allow="both")
    assert verdicts["w"].verdict == "changed", verdicts["w"].reason
    assert quality(proto, result, context.samples) < 60


TRANSPOSED = built(
    """(float[N, 32, 8, 8] x) => (float y) {
    a = ConvTranspose <strides = [2, 2]> (x, w1)  b = Relu(a)  y = Conv(b, w2) }""",
    {"w1": weight(32, 24, 2, 2), "w2": weight(8, 24, 1, 1)},
)


def test_transposed_convolutions_with_data():
    proto = inferred(TRANSPOSED)
    mixing = numbers(32, 32, seed=3) * np.geomspace(1, 0.02, 32, dtype=np.float32)[:, None]
    feeds = [
        {"x": np.einsum("nchw,cd->ndhw", numbers(2, 32, 8, 8, seed=[place]), mixing)}
        for place in range(12)
    ]
    context = context_of(proto, feeds[:8])
    options = {"rank_ratio": 0.5, "rank_multiple": 4, "include": ("w1",)}
    result, verdicts = factorized(proto, context, **options)
    assert verdicts["w1"].reason.startswith("channel of rank 12: 12x32x1x1 12x24x2x2; fitted")
    plain, _ = factorized(proto, **options)
    assert quality(proto, result, feeds[8:]) > quality(proto, plain, feeds[8:]) + 3
    # 196,608 multiplications of 245,760; 8,192 for each rank.
    _, verdicts = factorized(proto, context, **{**options, "rank_ratio": None, "macs": 0.7})
    assert verdicts["w1"].reason.startswith("channel of rank 12: ")


def test_what_cannot_be_timed_stays():
    proto = built(
        "(int64[N] ids) => (float[N, 32] y) { y = Gather(w, ids) }", {"w": matrix(60, 32)}
    )
    _, verdicts = factorized(proto, rank_ratio=0.5, allow="both")
    assert verdicts["w"].reason == "nothing runs its layer alone"
    _, verdicts = factorized(proto, rank_ratio=0.5)
    assert verdicts["w"].verdict == "changed"


def test_weights_that_are_not_finite():
    broken = matrix(48, 64)
    broken[3, 4] = np.nan
    proto = built("(float[N, 48] x) => (float[N, 64] y) { y = MatMul(x, w) }", {"w": broken})
    _, verdicts = factorized(proto, rank_ratio=0.5)
    assert verdicts["w"].reason == "holds NaN or infinity"


@pytest.mark.parametrize("later", [Cluster(), Quantize(mode="static")], ids=lambda one: one.name)
def test_other_passes_take_the_factors(untimed, later):
    proto = built(
        """(float[N, 16, 8, 8] x) => (float[N, 96] y) {
            c = Conv <pads = [1, 1, 1, 1]> (x, w1)  r = Relu(c)  p = GlobalAveragePool(r)
            f = Flatten(p)  y = Gemm <transB = 1> (f, w2) }""",
        {"w1": weight(128, 16, 3, 3), "w2": weight(96, 128)},
    )
    first = Factorize(rank_ratio=0.5, allow="size")
    report = compress(proto, [first, later], data=list(IMAGES), settings=untimed).report
    assert [step.status for step in report.steps] == ["applied", "applied"]
    assert report.validation[0].problem is None
    names = [each.name for each in report.steps[1].changed]
    assert {"w1.low_rank.0", "w1.low_rank.1"} <= set(names)
    alone = compress(proto, [later], data=list(IMAGES), settings=untimed).report
    assert report.output.bytes < alone.output.bytes

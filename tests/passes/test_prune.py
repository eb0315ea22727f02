"""Pruning: what it leaves, what makes up for it, and what later passes do with the zeros."""

import numpy as np
import onnx
import pytest
from single_weight import model_of

from onnxcomp import Context, load_model, weights
from onnxcomp.graph import model_bytes, store_of
from onnxcomp.passes import Cluster, Expand, Prune, Quantize
from onnxcomp.runtime import open_session, read_samples
from onnxcomp.stores import SparseStore

RANDOM = np.random.default_rng(0)
WEIGHT = RANDOM.standard_normal((64, 48), np.float32)
WIDE = RANDOM.standard_normal((256, 192), np.float32)


def correlated(count, width, seed):
    random = np.random.default_rng(seed)
    mixing = np.random.default_rng(1).standard_normal((width // 4, width))
    noise = 0.2 * random.standard_normal((count, width))
    drawn = random.standard_normal((count, width // 4)) @ mixing / np.sqrt(width) + noise
    return (drawn + 0.3).astype(np.float32)


def samples_for(model, count=60, seed=2):
    width = weights_of(model)[0].shape[0]
    feeds = [{"x": correlated(8, width, seed + each)} for each in range(count)]
    return read_samples(feeds, open_session(model_bytes(model)).inputs)


def weights_of(model):
    return list(weights(model))


def pruned(values, *, data=False, opset=17, **options):
    """Return the verdict on a weight, the weight afterwards, and the model."""
    model = model_of(values, opset)
    samples = samples_for(model) if data else None
    (verdict, *_) = Prune(**options).apply(model, Context(samples=samples))
    return verdict, weights_of(model)[0].load(), model


def run(model, feed):
    return open_session(model_bytes(model)).run({"x": feed})["y"]


@pytest.mark.parametrize("sparsity", [0.3, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("data", [False, True])
def test_the_sparsity_is_reached(sparsity, data):
    verdict, after, _ = pruned(WEIGHT, sparsity=sparsity, data=data)
    assert np.count_nonzero(after == 0) == round(sparsity * WEIGHT.size)
    assert verdict.verdict == "changed"
    assert verdict.reason.startswith(f"{sparsity:.1%} zeros by ")
    assert verdict.bytes_after < verdict.bytes_before * (1.05 - sparsity) + 4000


def test_without_data_the_largest_stay_as_they_are():
    verdict, after, _ = pruned(WEIGHT, sparsity=0.6)
    assert verdict.reason == "60.0% zeros by magnitude"
    kept = after != 0
    np.testing.assert_array_equal(after[kept], WEIGHT[kept])
    assert np.abs(WEIGHT[kept]).min() >= np.abs(WEIGHT[~kept]).max()


def test_a_threshold():
    _, after, _ = pruned(WEIGHT, threshold=0.8)
    np.testing.assert_array_equal(after, np.where(np.abs(WEIGHT) < 0.8, 0, WEIGHT))


@pytest.mark.parametrize("data", [False, True])
def test_patterns_run_along_the_inputs(data):
    _, after, _ = pruned(WEIGHT, pattern="2:4", data=data)
    assert np.all(np.count_nonzero(after.reshape(16, 4, 48), axis=1) == 2)
    _, after, _ = pruned(WEIGHT, block=8, sparsity=0.5, data=data)
    alive = np.count_nonzero(after.reshape(8, 8, 48), axis=1)
    assert set(np.unique(alive)) == {0, 8}
    _, after, _ = pruned(WEIGHT, scope="row", sparsity=0.5, data=data)
    assert np.all(np.count_nonzero(after, axis=0) == 32)


@pytest.mark.parametrize("data", [False, True])
def test_patterns_of_a_convolution_run_along_its_channels(data):
    model = load_model(convolution())
    shape = (2, 16, 6, 6)
    feeds = [{"x": RANDOM.standard_normal(shape).astype(np.float32)} for _ in range(12)]
    samples = read_samples(feeds, open_session(model_bytes(model)).inputs) if data else None
    Prune(pattern="2:4").apply(model, Context(samples=samples))
    after = next(each for each in weights_of(model) if each.name == "w").load()
    assert np.all(np.count_nonzero(after.reshape(24, 4, 4, 3, 3), axis=2) == 2)


def convolution():
    proto = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        lone (float[N, 16, 6, 6] x) => (float[N, 24, 4, 4] y) { y = Conv(x, w) }
        """)
    values = RANDOM.standard_normal((24, 16, 3, 3)).astype(np.float32)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(values, "w"))
    return proto


@pytest.mark.parametrize("criterion", ["magnitude", "wanda", "sparsegpt"])
@pytest.mark.parametrize("options", [{}, {"pattern": "2:4"}, {"scope": "row"}, {"steps": 3}])
def test_data_helps_on_what_it_has_not_seen(criterion, options):
    unseen = correlated(200, 64, 99)
    wanted = run(model_of(WEIGHT), unseen)
    errors = []
    for data in (False, True):
        used = {"criterion": criterion, **options} if data else options
        _, _, model = pruned(WEIGHT, data=data, **used)
        errors.append(np.square(run(model, unseen) - wanted).sum())
    assert errors[1] < 0.35 * errors[0]


def test_outputs_vary_as_much_as_before():
    given = np.concatenate([correlated(8, 64, 2 + each) for each in range(60)])
    wanted = run(model_of(WEIGHT), given)
    _, _, model = pruned(WEIGHT, data=True, sparsity=0.8)
    found = run(model, given)
    assert found.std(axis=0) == pytest.approx(wanted.std(axis=0), rel=0.1)
    assert found.std() == pytest.approx(wanted.std(), rel=0.01)


def test_shares_follow_what_each_weight_means():
    model = load_model(two_branches())
    feeds = [{"x": correlated(8, 64, each)} for each in range(40)]
    samples = read_samples(feeds, open_session(model_bytes(model)).inputs)
    Prune(sparsity=0.6).apply(model, Context(samples=samples))
    shares = {each.name: np.mean(each.load() == 0) for each in weights_of(model)}
    assert shares["little"] > 0.75
    assert shares["much"] < 0.55
    total = [np.count_nonzero(each.load() == 0) for each in weights_of(model)]
    assert sum(total) >= 0.59 * 2 * WEIGHT.size


def test_no_weight_goes_further_than_was_tried():
    proto = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        deep (float[N, 64] x) => (float[N, 64] y)
        { a = MatMul(x, first) b = Relu(a) c = MatMul(b, second) d = Relu(c) y = MatMul(d, last) }
        """)
    for name in ("first", "second", "last"):
        values = RANDOM.standard_normal((64, 64)).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    model = load_model(proto)
    feeds = [{"x": correlated(8, 64, each)} for each in range(40)]
    samples = read_samples(feeds, open_session(model_bytes(model)).inputs)
    Prune(sparsity=0.6).apply(model, Context(samples=samples))
    shares = {each.name: np.mean(each.load() == 0) for each in weights_of(model)}
    assert max(shares.values()) <= 0.801
    assert sum(shares.values()) == pytest.approx(1.8, abs=0.01)


def two_branches():
    proto = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        two (float[N, 64] x) => (float[N, 48] y)
        <float small = {0.01}>
        { a = MatMul(x, much) b = MatMul(x, little) c = Mul(b, small) y = Add(a, c) }
        """)
    for name in ("much", "little"):
        values = RANDOM.standard_normal(WEIGHT.shape).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    return proto


def test_global_shares_follow_magnitudes():
    proto = two_branches()
    # The same spread at another size; and one of which half is nearly nothing.
    values = RANDOM.standard_normal(WEIGHT.shape) * np.repeat([1, 0.01], 32)[:, None]
    tensor = onnx.numpy_helper.from_array((7 * values).astype(np.float32), "much")
    next(each for each in proto.graph.initializer if each.name == "much").CopyFrom(tensor)
    model = load_model(proto)
    Prune(scope="global").apply(model, Context())
    shares = {each.name: np.mean(each.load() == 0) for each in weights_of(model)}
    assert sum(shares.values()) == pytest.approx(1, abs=0.01)
    assert shares["much"] > shares["little"] + 0.1


@pytest.mark.parametrize("data", [False, True])
@pytest.mark.parametrize(
    "later",
    [
        Cluster(bits=4),
        Cluster(bits=3, granularity="tensor"),
        Cluster(size_ratio=4),
        Quantize(mode="weights"),
        Quantize(mode="weights", weight_type="int4"),
        Quantize(mode="weights", weight_type="ternary"),
        Quantize(mode="weights", weight_type="float16"),
    ],
    ids=str,
)
def test_later_passes_keep_the_zeros(later, data):
    _, before, model = pruned(WIDE, sparsity=0.7)
    samples = samples_for(model, 80) if data else None
    verdicts = later.apply(model, Context(samples=samples))
    assert verdicts[0].verdict == "changed", verdicts[0].reason
    after = weights_of(model)[0]
    assert not after.load()[before == 0].any()
    if later != Quantize(mode="weights", weight_type="ternary"):
        assert isinstance(store_of(after.tensor), SparseStore)


def test_seventy_per_cent_at_four_bits():
    _, _, model = pruned(WIDE, sparsity=0.7)
    Cluster(bits=4).apply(model, Context())
    store = store_of(weights_of(model)[0].tensor)
    assert 8 * store.nbytes / WIDE.size < 2.7
    data = model_bytes(model)
    assert model_bytes(load_model(data)) == data
    feed = RANDOM.standard_normal((3, 256)).astype(np.float32)
    Expand().apply(model, Context())
    np.testing.assert_array_equal(open_session(data).run({"x": feed})["y"], run(model, feed))


def test_what_is_left_alone():
    assert "would hardly be smaller" in pruned(WEIGHT[:20, :20], sparsity=0.1)[0].reason
    assert pruned(WEIGHT[:10, :10])[0].reason == "is tiny (100 elements)"
    assert pruned(np.full((32, 32), np.nan, np.float32))[0].reason == "holds NaN or infinity"


def test_an_old_opset_is_raised():
    _, _, model = pruned(WEIGHT, opset=9)
    assert model.opset == 11


def test_pruned_again_it_says_the_same():
    _, once, model = pruned(WEIGHT, sparsity=0.5)
    Prune(sparsity=0.5).apply(model, Context())
    np.testing.assert_array_equal(weights_of(model)[0].load(), once)

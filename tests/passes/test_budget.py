"""Bits for each tensor, so that the whole file keeps within a number of bytes."""

import json
import re
from itertools import pairwise

import numpy as np
import pytest

from onnxcomp import Context, compress, load_model
from onnxcomp.errors import OptionError
from onnxcomp.graph import model_bytes, weights
from onnxcomp.passes import Cluster
from onnxcomp.pipeline import parse_recipe, recipe
from onnxcomp.runtime import open_session, read_samples
from onnxcomp.statistics import observe
from onnxcomp.testing.small_model import parsed

HEADER = '<ir_version: 8, opset_import: ["" : 17]>'
SHORT = (
    r"cluster: a file of (\d+) bytes cannot be reached; the smallest has about (\d+) "
    r"\(allow more, or leave fewer tensors out\)"
)
FIXED = "cluster: size_ratio and max_bytes choose for each tensor; leave out "


def samples_of(model, feeds):
    return read_samples(list(feeds), open_session(model_bytes(model)).inputs)


def feeds_for(name, *shape, count=6):
    random = np.random.default_rng(1)
    return [{name: random.standard_normal(shape).astype(np.float32)} for _ in range(count)]


def verdicts_of(proto, feeds=None, **options):
    """Return the verdicts on what is changed, by name."""
    model = load_model(proto)
    samples = None if feeds is None else samples_of(model, feeds)
    verdicts = Cluster(**options).apply(model, Context(samples=samples))
    return {each.name: each for each in verdicts if each.verdict == "changed"}


def bits(verdict):
    """Return the bits a weight, by what the verdict says."""
    clusters = re.match(r"(\d+) clusters", verdict.reason)
    if clusters:
        return np.log2(int(clusters[1]))
    entries, width = re.match(r"(\d+) vectors of (\d)", verdict.reason).groups()
    return np.log2(int(entries)) / int(width)


def assert_within(made, path, limit):
    """Check that a result is valid and the file, as written, no larger than the limit."""
    (step,) = made.report.steps
    assert (step.status, step.reason) == ("applied", "")
    record = made.save(path).output
    assert record.bytes == path.stat().st_size <= limit
    open_session(path)


SOURCES = {"mlp": ("x", 4, 32), "convnet": ("image", 2, 3, 8, 8)}
LIMITS = {"mlp": (6600, 7500, 9000), "convnet": (11500, 14500)}


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("with_data", [False, True], ids=["without data", "with data"])
def test_more_bytes_are_never_worse(models, tmp_path, untimed, name, with_data):
    proto = models[name].proto
    feeds = feeds_for(*SOURCES[name])
    errors, ratios = [], []
    for limit in LIMITS[name]:
        made = compress(
            proto, [Cluster(max_bytes=limit)], data=feeds if with_data else None, settings=untimed
        )
        assert_within(made, tmp_path / "small.onnx", limit)
        changed = made.report.steps[0].changed
        assert changed
        errors.append(sum(each.error**2 for each in changed))
        ratios.append(made.report.validation[0].worst_snr_db)
    for (less, more), (worse, better) in zip(pairwise(errors), pairwise(ratios), strict=True):
        assert better > worse - 1 if with_data else more <= less * 1.02
    # The budget is for something.
    assert ratios[-1] > ratios[0] + 10


@pytest.mark.parametrize("ratio", [1.4, 2.3])
def test_a_ratio_is_of_the_file_that_was_there(models, tmp_path, untimed, ratio):
    source = models["mlp"].source(tmp_path)
    made = compress(source, [Cluster(size_ratio=ratio)], settings=untimed)
    assert_within(made, tmp_path / "small.onnx", len(source) / ratio)
    assert made.report.size_ratio >= ratio


def test_the_names_in_the_recipe_count_too(models, tmp_path, untimed):
    names = tuple(f"a/layer/of/some/model/that/is/not/there.{place}" for place in range(100))
    limit = 13000
    made = compress(
        models["mlp"].proto, [Cluster(max_bytes=limit, exclude=names)], settings=untimed
    )
    assert_within(made, tmp_path / "small.onnx", limit)


def test_a_ratio_is_of_the_model_that_came_with_what_it_has_twice(untimed):
    random = np.random.default_rng(0)
    w = random.standard_normal((64, 64)).astype(np.float32)
    body = "a = MatMul (x, w)  y = MatMul (a, v)"
    text = f"{HEADER} twice (float[N,64] x) => (float[N,64] y) {{ {body} }}"
    proto = parsed(text, {"w": w, "v": w.copy()})
    # Of one of the two alone an eighth would be too little.
    made = compress(proto, [Cluster(size_ratio=8)], settings=untimed)
    assert made.report.size_ratio >= 8


def test_a_ratio_of_external_data(models, tmp_path, untimed):
    source = models["external_data"].source(tmp_path)
    before = sum(each.stat().st_size for each in tmp_path.iterdir())
    made = compress(source, [Cluster(size_ratio=2)], settings=untimed)
    (tmp_path / "out").mkdir()
    record = made.save(tmp_path / "out" / "small.onnx").output
    after = sum(each.stat().st_size for each in (tmp_path / "out").iterdir())
    assert record.bytes == after <= before / 2


def unequal(sensitive):
    """Return a model of two weights alike, of which one matters a hundred times as much."""
    random = np.random.default_rng(0)
    w, v = random.standard_normal((2, 40, 64)).astype(np.float32)
    products = {"w": "a = MatMul (x, w)", "v": "b = MatMul (x, v)"}
    scaled = {"w": "c = Mul (a, many)  y = Add (c, b)", "v": "c = Mul (b, many)  y = Add (c, a)"}
    body = f"{products['w']}  {products['v']}  {scaled[sensitive]}"
    text = f"{HEADER} unequal (float[N,40] x) => (float[N,64] y) {{ {body} }}"
    return parsed(text, {"w": w, "v": v, "many": np.array(100, np.float32)})


@pytest.mark.parametrize(("sensitive", "other"), ["wv", "vw"])
def test_bits_go_where_they_matter(sensitive, other):
    feeds = feeds_for("x", 4, 40, count=6)
    found = verdicts_of(unequal(sensitive), feeds, max_bytes=6850)
    assert bits(found[sensitive]) > bits(found[other])


def test_statistics_in_place_of_data(models, tmp_path, untimed):
    proto = models["mlp"].proto
    feeds = feeds_for("x", 4, 32)
    model = load_model(proto)
    path = tmp_path / "statistics"
    observe(model, samples_of(model, feeds)).save(path)
    made = [
        compress(proto, [Cluster(max_bytes=7000)], statistics=each, data=None, settings=untimed)
        for each in (path, path, None)
    ]
    for each in made:
        assert_within(each, tmp_path / "small.onnx", 7000)
    assert made[0].to_bytes() == made[1].to_bytes() != made[2].to_bytes()
    reasons = [each.reason for each in made[0].report.steps[0].changed]
    assert all("; " in each for each in reasons)


def test_the_same_bytes_again_and_from_the_recipe(untimed):
    configured = Cluster(size_ratio=3)
    (read,) = parse_recipe(json.loads(json.dumps(recipe([configured]))))
    assert read == configured
    feeds = feeds_for("x", 4, 40, count=6)
    made = [
        compress(unequal("w"), [each], data=feeds, settings=untimed)
        for each in (configured, configured, read)
    ]
    assert made[0].to_bytes() == made[1].to_bytes() == made[2].to_bytes()
    (step,) = made[0].report.steps
    assert step.options["size_ratio"] == 3


def test_vectors_are_weighed_up_too(tmp_path, untimed):
    random = np.random.default_rng(0)
    w = random.standard_normal((192, 256)).astype(np.float32)
    text = f"{HEADER} one (float[N,192] x) => (float[N,256] y) {{ y = MatMul (x, w) }}"
    limit = 19300
    made = compress(parsed(text, {"w": w}), [Cluster(max_bytes=limit)], settings=untimed)
    (verdict,) = made.report.steps[0].changed
    assert verdict.reason == "256 vectors of 4"
    assert_within(made, tmp_path / "small.onnx", limit)
    # Better than what scalars have in fewer bytes, by the margin that vectors gain.
    scalars = verdicts_of(parsed(text, {"w": w}), bits=2)["w"]
    assert verdict.error < 0.95 * scalars.error


SPECIAL = {
    "zeros": lambda _: np.zeros((30, 41)),
    "two values": lambda random: random.integers(2, size=(30, 41)),
    "one column": lambda random: random.standard_normal((30, 41)) * (np.arange(41) == 3),
    "not finite": lambda _: np.where(np.arange(41) == 3, np.nan, np.ones((30, 41))),
    "infinite": lambda _: np.where(np.arange(41) == 3, np.inf, np.ones((30, 41))),
    "huge": lambda random: 1e30 * random.standard_normal((30, 41)),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("make", SPECIAL.values(), ids=list(SPECIAL))
@pytest.mark.parametrize("with_data", [False, True], ids=["without data", "with data"])
def test_a_weight_unlike_others_does_not_spoil_them(make, with_data):
    random = np.random.default_rng(0)
    values = {"w": random.standard_normal((30, 64)), "odd": make(random)}
    body = "{ y = MatMul (x, w)  z = MatMul (x, odd) }"
    text = f"{HEADER} two (float[N,30] x) => (float[N,64] y, float[N,41] z) {body}"
    proto = parsed(text, {name: each.astype(np.float32) for name, each in values.items()})
    feeds = feeds_for("x", 4, 30, count=6) if with_data else None
    limit = proto.ByteSize() - 2000
    model = load_model(proto)
    samples = samples_of(model, feeds) if with_data else None
    verdicts = Cluster(max_bytes=limit).apply(model, Context(samples=samples))
    assert len(model_bytes(model)) <= limit
    found = {each.name: each for each in verdicts if each.verdict == "changed"}
    assert bits(found["w"]) >= 4
    for each in weights(model):
        if each.name not in found:
            assert np.array_equal(each.load(), proto_values(proto, each.name), equal_nan=True)


def proto_values(proto, name):
    return next(each.load() for each in weights(load_model(proto)) if each.name == name)


@pytest.mark.parametrize(
    "fixed",
    [{"clusters": 5}, {"width": 2, "bits": 2}, {"share": "model"}, {"granularity": "tensor"}],
    ids=str,
)
@pytest.mark.parametrize("budget", [{"size_ratio": 3}, {"max_bytes": 9000}], ids=str)
def test_what_a_budget_chooses_is_not_given(fixed, budget):
    with pytest.raises(OptionError) as caught:
        Cluster(**fixed, **budget)
    assert str(caught.value) == f"{FIXED}{next(iter(fixed))}"


def test_one_budget():
    with pytest.raises(OptionError) as caught:
        Cluster(size_ratio=3, max_bytes=9000)
    message = "cluster: size_ratio and max_bytes exclude each other; give one"
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size_ratio": 1}, "cluster: size_ratio = 1: input should be greater than 1"),
        ({"size_ratio": float("nan")}, "cluster: size_ratio = nan: "),
        (
            {"max_bytes": 0},
            "cluster: max_bytes = 0: input should be greater than or equal to 1",
        ),
    ],
    ids=str,
)
def test_budgets_that_are_none(options, message):
    with pytest.raises(OptionError) as caught:
        Cluster(**options)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("with_data", [False, True], ids=["without data", "with data"])
def test_the_smallest_that_is_named_can_be_had(models, with_data):
    proto = models["mlp"].proto
    feeds = feeds_for("x", 4, 32, count=4) if with_data else None
    with pytest.raises(OptionError) as caught:
        verdicts_of(proto, feeds, max_bytes=2000)
    limit, least = map(int, re.fullmatch(SHORT, str(caught.value)).groups())
    assert limit == 2000
    assert verdicts_of(proto, feeds, max_bytes=least)
    with pytest.raises(OptionError, match=SHORT):
        verdicts_of(proto, feeds, max_bytes=least - 1)


def test_nothing_to_cluster(models):
    proto = models["no_weights"].proto
    assert verdicts_of(proto, max_bytes=proto.ByteSize() + 2000) == {}
    with pytest.raises(OptionError, match=SHORT):
        verdicts_of(proto, max_bytes=20)

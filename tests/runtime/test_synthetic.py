"""Made-up samples: types, sizes, and the search for sizes that run."""

import numpy as np
import onnx
import pytest

from onnxcomp.errors import DataError
from onnxcomp.runtime import find_runnable, open_session, samples_for, synthetic_samples


def session_of(text, opset=21):
    head = f'<ir_version: 10, opset_import: ["" : {opset}]>\n'
    return open_session(onnx.parser.parse_model(head + text).SerializeToString())


def shapes(feed):
    return {name: array.shape for name, array in feed.items()}


def test_types_shapes_and_shared_symbols():
    session = session_of("""
        agraph (float[batch, length, 4] x, int64[batch, length] ids, int64[batch, length] mask,
                bool[length] flags, string[2] words, int64 rate, double[3] d, float16[batch, 2] h)
            => (float[batch, length, 4] y) { y = Identity(x) }
        """)
    samples = synthetic_samples(session, 3, seed=7)
    assert (samples.synthetic, samples.count, samples.batches) == (True, 3, 3)
    feeds = list(samples)
    assert shapes(feeds[0]) == {
        "x": (1, 32, 4),
        "ids": (1, 32),
        "mask": (1, 32),
        "flags": (32,),
        "words": (2,),
        "rate": (),
        "d": (3,),
        "h": (1, 2),
    }
    assert {name: array.dtype.name for name, array in feeds[0].items()} == {
        "x": "float32",
        "ids": "int64",
        "mask": "int64",
        "flags": "bool",
        "words": "object",
        "rate": "int64",
        "d": "float64",
        "h": "float16",
    }
    assert set(np.unique(feeds[0]["ids"])) == {0, 1}
    assert feeds[0]["mask"].all()
    assert feeds[0]["rate"] == 1
    again = list(synthetic_samples(session, 3, seed=7))
    np.testing.assert_array_equal(feeds[2]["x"], again[2]["x"])
    assert not np.array_equal(feeds[0]["x"], feeds[1]["x"])


def test_sizes_are_tried_until_the_model_runs():
    session = session_of(
        """
        agraph (float[N, width] x) => (float[N, 2] y) <float[64, 2] w = {0}> { y = MatMul(x, w) }
        """.replace("{0}", "{" + ",".join(["1"] * 128) + "}")
    )
    assert find_runnable(session) == {"N": 1, "width": 64}


def test_two_dimensions_may_want_different_sizes():
    session = session_of("""
        agraph (float[N, a, b] x) => (float[N, 512] y)
            <int64[2] s = {1, 512}> { y = Reshape(x, s) }
        """)
    sizes = find_runnable(session)
    assert sizes["a"] * sizes["b"] == 512


def test_images_are_larger_than_sequences():
    session = session_of("""
        agraph (float[N, 3, H, W] x, float[N, 4, L] z) => (float[N, 3, H, W] y)
        { y = Relu(x) }
        """)
    assert find_runnable(session) == {"N": 1, "H": 224, "W": 224, "L": 32}


def test_sums_of_dimensions_are_added_up():
    model = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 21]>
        agraph (float[N, past] p, float[N, now] x, float[N, total] t) => (float[N, total] y)
        { c = Concat<axis=1>(p, x)  y = Add(c, t) }
        """)
    model.graph.input[2].type.tensor_type.shape.dim[1].dim_param = "past + now"
    (feed,) = synthetic_samples(open_session(model.SerializeToString()), 1, seed=0)
    assert shapes(feed) == {"p": (1, 32), "x": (1, 32), "t": (1, 64)}


def test_a_model_that_nothing_made_up_fits():
    session = session_of("""
        agraph (float[N, 3] x) => (float[1, 7] y) <int64[2] s = {1, 7}> { y = Reshape(x, s) }
        """)
    with pytest.raises(DataError, match=r"^made-up inputs do not run; give --data \(cannot run"):
        synthetic_samples(session, 1, seed=0)


def test_a_sequence_cannot_be_made_up():
    session = session_of("""
        agraph (seq(float[N]) x, int64 i) => (float[N] y) { y = SequenceAt(x, i) }
        """)
    with pytest.raises(DataError) as caught:
        samples_for(session)
    assert str(caught.value) == (
        "input 'x' is seq(tensor(float)), for which nothing can be made up"
    )


def test_a_model_without_inputs_is_fed_nothing():
    session = session_of("agraph () => (float[1] y) { y = Constant<value_floats=[1.0]>() }")
    assert list(samples_for(session, limit=2)) == [{}, {}]

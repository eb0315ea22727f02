"""Padding of pictures that are one wide."""

import numpy as np
import pytest
from simplifying import built, numbers, operators, same_outputs, simplified

from onnxcomp.runtime import open_session

PADDED = """g (float[N, 4, {height}, {width}] x) => (float[N, 6, H, W] y) {{
    {pad}  t = Tanh(x)  unused = Tanh(t)
    y = Conv <pads = {pads}> ({read}, w, b) }}"""
WEIGHTS = {"w": numbers(6, 4, 5, 1), "b": numbers(6)}
PAD = "p = Pad(x, amounts)"
AMOUNTS = np.array([0, 0, 2, 0, 0, 0, 2, 0], np.int64)


def model(width, *, apart, pads=(2, 0, 2, 0), height=16, opset=17):
    text = PADDED.format(
        width=width,
        height=height,
        pad=PAD if apart else "",
        read="p" if apart else "x",
        pads=[0, 0, 0, 0] if apart else list(pads),
    )
    return built(text, opset, **WEIGHTS, **({"amounts": AMOUNTS} if apart else {}))


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("height", [16, "H"])
def test_pictures_one_wide_are_padded_apart(apart, height):
    proto = model(1, apart=apart, height=height)
    result, _ = simplified(proto)
    assert operators(result.graph) == ["Pad", "Conv"]
    assert not result.graph.node[0].input[2]
    feed = {"x": numbers(2, 4, 16, 1)}
    same_outputs(proto, result, **feed)
    again, _ = simplified(result)
    assert again == result
    # ONNX Runtime leaves the Pad where it is, and gives the same.
    session = open_session(result.SerializeToString(), threads=1)
    (optimized,) = session.run(feed).values()
    plain = open_session(result.SerializeToString(), optimize=False, threads=1)
    np.testing.assert_allclose(optimized, plain.run(feed)["y"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("width", "pads", "opset"),
    [(2, (2, 0, 2, 0), 17), (1, (0, 0, 0, 0), 17), (1, (2, 1, 2, 1), 17), (1, (2, 0, 2, 0), 10)],
    ids=["two wide", "unpadded", "columns", "opset 10"],
)
def test_others_pad_by_themselves(width, pads, opset):
    proto = model(width, apart=False, pads=pads, opset=opset)
    result, _ = simplified(proto)
    assert operators(result.graph) == ["Conv"]
    same_outputs(proto, result, x=numbers(2, 4, 16, width))

"""The operators of a model after a pass, whole: what a change of a store or a pass changes."""

from pathlib import Path

import onnx
import pytest
from quantizing import CONVNET, IMAGES, quantized

from onnxcomp import Context, load_model
from onnxcomp.graph import model_proto
from onnxcomp.passes import Cluster, Factorize, Prune, PruneChannels, Simplify

FOLDER = Path(__file__).parents[1] / "golden"


def listing(graph, indent=""):
    """Yield a line for each node and each initializer, without any values."""
    for tensor in graph.initializer:
        kind = onnx.TensorProto.DataType.Name(tensor.data_type).lower()
        yield f"{indent}{tensor.name}: {kind}{list(tensor.dims)}"
    for node in graph.node:
        outputs, inputs = ", ".join(node.output), ", ".join(node.input)
        yield f"{indent}{outputs} = {node.op_type}({inputs})"
        for attribute in node.attribute:
            yield from listing(attribute.g, indent + "    ")


@pytest.mark.parametrize(
    ("one", "name"),
    [
        (Cluster(bits=4), "mlp"),
        (Cluster(bits=4), "tied"),
        (Cluster(bits=4), "if_bodies"),
        (Simplify(), "convnet"),
        (PruneChannels(ratio=0.4), "convnet"),
        (Prune(), "mlp"),
        (Factorize(rank_ratio=0.5, allow="size"), "mlp"),
        (Factorize(rank_ratio=0.5, allow="size", rank_multiple=1), "convnet"),
        (Factorize(rank_ratio=0.5, allow="size"), "recurrent"),
    ],
    ids=str,
)
def test_golden(models, one, name):
    model = load_model(models[name].proto)
    one.apply(model, Context())
    text = "\n".join(listing(model_proto(model).graph)) + "\n"
    assert text == (FOLDER / f"{one.name}-{name}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("mode", ["static", "dynamic"])
def test_golden_quantized(models, mode):
    # Whether a mean is corrected depends on the data, and the ranges on what was measured.
    proto, feeds = (CONVNET, IMAGES) if mode == "static" else (models["mlp"].proto, None)
    result, _ = quantized(proto, feeds, mode=mode, ranges="minmax", keep_float="0", profile="cpu")
    text = "\n".join(listing(onnx.load_from_string(result).graph)) + "\n"
    assert text == (FOLDER / f"quantize-{mode}.txt").read_text(encoding="utf-8")

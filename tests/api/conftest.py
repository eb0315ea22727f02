"""Passes that do not keep their promises."""

from typing import Annotated, ClassVar, Literal

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from pydantic import Field

from onnxcomp import Pass, Stage, Verdict, skip, weights


class Fake(Pass):
    """Spoil every weight that may be changed."""

    name: ClassVar[str] = "fake"
    stage: ClassVar[Stage] = Stage.CODE

    kind: Annotated[
        Literal["invalid", "nan", "raise", "miscompiled", "exact"],
        Field(description="What goes wrong."),
    ] = "exact"

    @property
    def saves_bytes(self):
        return False

    def apply(self, model, context):
        del context
        if self.kind == "raise":
            raise ZeroDivisionError("two\nlines")
        chosen, verdicts = self.candidates(model)
        for weight in chosen:
            getattr(self, f"_{self.kind}")(model, weight)
        return verdicts + [_changed(weight) for weight in chosen]

    def _exact(self, model, weight):
        del model
        weight.tensor.values = weight.load().copy()

    def _nan(self, model, weight):
        del model
        weight.tensor.values = np.full(weight.shape, np.nan, weight.dtype)

    def _invalid(self, model, weight):
        del model
        weight.readers[0].node.op = "NoSuchOperator"

    def _miscompiled(self, model, weight):
        """Quantize so that ONNX Runtime fuses to a kernel that scales along the other axis."""
        node = weight.readers[0].node
        scale = gs.Constant("s", np.array(0.03, np.float32))
        zero = gs.Constant("z", np.array(128, np.uint8))
        scales = np.geomspace(0.001, 0.1, weight.shape[0], dtype=np.float32)
        values = np.clip(np.rint(weight.load() / scales[:, None]), -127, 127).astype(np.int8)
        packed = [
            gs.Constant("w_int8", values),
            gs.Constant("w_scales", scales),
            gs.Constant("w_zeros", np.zeros(weight.shape[0], np.int8)),
        ]
        quantized, rounded, widened = (gs.Variable(name) for name in ("xq", "xd", "wd"))
        reader_inputs = list(node.inputs)
        node.inputs = [rounded, widened]
        model.nodes[0:0] = [
            gs.Node("QuantizeLinear", inputs=[reader_inputs[0], scale, zero], outputs=[quantized]),
            gs.Node("DequantizeLinear", inputs=[quantized, scale, zero], outputs=[rounded]),
            gs.Node("DequantizeLinear", attrs={"axis": 0}, inputs=packed, outputs=[widened]),
        ]


class Bloat(Pass):
    """Promise to save bytes, and do not."""

    name: ClassVar[str] = "bloat"
    stage: ClassVar[Stage] = Stage.CODE

    def apply(self, model, context):
        del context
        model.set_metadata("ballast", "x" * 100)
        return [_changed(weight) for weight in weights(model)]


class Idle(Pass):
    """Change the model, and do not say so."""

    name: ClassVar[str] = "idle"
    stage: ClassVar[Stage] = Stage.CODE

    def apply(self, model, context):
        del context
        model.set_metadata("ballast", "x" * 100)
        return [skip(weight, "is not wanted") for weight in weights(model)]


def _changed(weight):
    return Verdict(
        name=weight.name,
        op_types=weight.op_types,
        shape=weight.shape,
        verdict="changed",
        reason="spoilt",
        bytes_before=weight.tensor.nbytes,
        bytes_after=weight.tensor.nbytes,
        error=0.0,
    )


@pytest.fixture
def fake():
    return Fake


@pytest.fixture
def bloat():
    return Bloat()


@pytest.fixture
def idle():
    return Idle()

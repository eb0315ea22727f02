"""The pass: which weights are clustered, how, and whether it pays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from onnxcomp.errors import OptionError
from onnxcomp.graph import merge_identical
from onnxcomp.layerwise import WeightPass
from onnxcomp.pipeline import Stage, Strength, change
from onnxcomp.stores import FOLDING_LIMIT, TOO_LARGE
from onnxcomp_passes.cluster.coding import LOWEST_OPSET, common_codebook
from onnxcomp_passes.cluster.method import Clustering, Codebooks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxcomp.graph import Model, Weight
    from onnxcomp.pipeline import Context
    from onnxcomp.verdicts import Verdict


class Cluster(WeightPass):
    """Share weights: store each tensor as short codes into a small codebook.

    The codebook is the exact optimum of one-dimensional k-means. A weight W becomes
    ``Gather(codebook, codes)``, in a form that ONNX Runtime folds when it loads the session, so
    that the file shrinks and the speed stays. Identical tensors become one.

    Method: Han et al., "Deep Compression" (2016); optimal codebooks after Wang and Song (2011).
    """

    name: ClassVar[str] = "cluster"
    stage: ClassVar[Stage] = Stage.CODE
    least_opset: ClassVar[int] = LOWEST_OPSET

    bits: Annotated[int, Field(ge=1, le=8, description="Bits a weight.")] = 4
    clusters: Annotated[
        int | None,
        Field(ge=2, le=256, description="Entries of a codebook; instead of bits."),
    ] = None
    granularity: Annotated[
        Literal["scale", "tensor", "group"],
        Field(
            description="One codebook a tensor times a scale per output channel; one codebook a "
            "tensor; or one for each group of output channels."
        ),
    ] = "scale"
    group_size: Annotated[
        int, Field(ge=1, description="Output channels that share a codebook (group).")
    ] = 16
    width: Annotated[
        Literal[1, 2, 4],
        Field(description="Neighbouring weights that one code stands for (vector codebooks)."),
    ] = 1
    entries: Annotated[
        Literal["float32", "float16", "int8"],
        Field(description="Type in which codebooks are stored."),
    ] = "float32"
    share: Annotated[
        Literal["tensor", "model"],
        Field(description="Whether each tensor has codebooks of its own or all share one."),
    ] = "tensor"

    def model_post_init(self, context: Any, /) -> None:
        """Refuse combinations that cannot be stored."""
        del context
        if self.clusters is None and self.bits * self.width > 8:  # noqa: PLR2004 - a byte
            most = 8 // self.width
            raise OptionError(
                f"{self.name}: bits = {self.bits}: at most {most} with width = {self.width}"
            )
        if self.granularity == "group" and (self.share == "model" or self.width > 1):
            raise OptionError(
                f"{self.name}: granularity = 'group' has codebooks of its own and width 1; "
                "use 'scale' or 'tensor'"
            )
        given = {
            "clusters": self.clusters is not None,
            "width": self.width > 1,
            "share": self.share == "model",
            "granularity": self.granularity != "scale",
        }
        self.check_budget([name for name, is_given in given.items() if is_given])
        if self.share == "model" and self.width > 1:
            raise OptionError(f"{self.name}: share = 'model' needs width = 1")

    @property
    def strength(self) -> Strength:
        """What a search turns: the size."""
        return Strength("size_ratio", 1.5, 24.0)

    def begin(self, model: Model) -> list[Verdict]:
        """Let all readers of identical weights read the first; return verdicts on the others."""
        candidates, _ = self.candidates(model)
        return [
            change(
                gone, f"identical to {kept.name}", before=gone.tensor.nbytes, after=0, error=0.0
            )
            for kept, gone in merge_identical(model, candidates)
        ]

    def method(self, weights: Sequence[Weight], context: Context) -> Clustering:
        """Return what codes weights by codebooks."""
        codebooks = Codebooks(
            self.bits,
            self.clusters,
            self.granularity,
            self.group_size,
            self.width,
            self.entries,
            context.seed,
        )
        if self.share == "tensor":
            return Clustering(codebooks, None)
        by_channel = self.granularity == "scale"
        return Clustering(
            codebooks, common_codebook(weights, codebooks.size, by_channel=by_channel)
        )

    def unsuitable(self, weight: Weight) -> str | None:
        """Return why a weight is left alone, in words that follow its name; None if it is not."""
        reason = super().unsuitable(weight)
        only_rows = set(weight.op_types) == {"Gather"}
        is_large = weight.size * weight.dtype.itemsize > FOLDING_LIMIT
        if reason is None and weight.size % self.width:
            reason = f"has {weight.size} elements, no multiple of width {self.width}"
        if reason is None and is_large and not only_rows:
            reason = TOO_LARGE
        return reason

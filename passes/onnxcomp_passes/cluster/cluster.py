"""The pass: which weights are clustered, how, and whether it pays."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from onnxcomp.errors import OptionError
from onnxcomp.graph import copy_model, count_bytes, merge_identical, raise_opset
from onnxcomp.layerwise import Coder, keep_within
from onnxcomp.pipeline import Pass, Stage, Strength, change, skip
from onnxcomp.stores import FOLDING_LIMIT, TOO_LARGE
from onnxcomp_passes.cluster.blocks import is_finite
from onnxcomp_passes.cluster.choosing import allotment_of
from onnxcomp_passes.cluster.coding import LOWEST_OPSET, common_codebook
from onnxcomp_passes.cluster.method import Clustering, Codebooks

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from onnxcomp.graph import Constant, Model, Weight
    from onnxcomp.pipeline import Context
    from onnxcomp.verdicts import Verdict
    from onnxcomp_passes.cluster.curves import Choice

ALLOTTING_SHARE = 0.5
"""Of the progress: for choosing bits."""


class Cluster(Pass):
    """Share weights: store each tensor as short codes into a small codebook.

    The codebook is the exact optimum of one-dimensional k-means. A weight W becomes
    ``Gather(codebook, codes)``, in a form that ONNX Runtime folds when it loads the session, so
    that the file shrinks and the speed stays. Identical tensors become one.

    Method: Han et al., "Deep Compression" (2016); optimal codebooks after Wang and Song (2011).
    """

    name: ClassVar[str] = "cluster"
    stage: ClassVar[Stage] = Stage.CODE

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
    min_elements: Annotated[
        int, Field(ge=1, description="Leave tensors with fewer elements alone.")
    ] = 256
    size_ratio: Annotated[
        float | None,
        Field(
            gt=1,
            description="Choose bits for each tensor, not --bits, for a file so much smaller.",
        ),
    ] = None
    max_bytes: Annotated[
        int | None,
        Field(
            ge=1,
            description="Choose bits for each tensor, not --bits, for a file of so many at most.",
        ),
    ] = None
    sequential: Annotated[
        bool,
        Field(description="With data, repair layers one after the other, each for its input."),
    ] = True
    depthwise: Annotated[
        bool, Field(description="Cluster depthwise convolutions too; they lose most by it.")
    ] = False

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
        if self.size_ratio is not None and self.max_bytes is not None:
            raise OptionError(
                f"{self.name}: size_ratio and max_bytes exclude each other; give one"
            )
        has_budget = self.size_ratio is not None or self.max_bytes is not None
        is_fixed = self.clusters or self.width > 1 or self.share == "model"
        if has_budget and (is_fixed or self.granularity != "scale"):
            raise OptionError(
                f"{self.name}: size_ratio and max_bytes choose the coding of each tensor; leave "
                "out clusters, width, share and granularity"
            )
        if self.share == "model" and self.width > 1:
            raise OptionError(f"{self.name}: share = 'model' needs width = 1")

    @property
    def strength(self) -> Strength:
        """What a search turns: the size."""
        return Strength("size_ratio", 1.5, 24.0)

    @property
    def codebooks(self) -> Codebooks:
        """What codebooks a weight gets, unless bits are chosen for each."""
        return self._codebooks(0)

    def apply(self, model: Model, context: Context) -> list[Verdict]:
        """Cluster every weight that is worth it; with data, repair each for what it now gets."""
        raise_opset(model, LOWEST_OPSET)
        limit = self.max_bytes
        if self.size_ratio is not None:
            limit = int(count_bytes(model) / self.size_ratio)
        verdicts = self._share_identical(model)
        original = copy_model(model)
        weights, skipped = self._suitable(model)
        common = self._common_codebook(weights)
        coder = Coder(Clustering(self._codebooks(context.seed), common), self.sequential)
        if limit is None:
            coder.run(model, original, weights, context)
        else:
            self._code_within(limit, model, weights, coder, context.part(0, ALLOTTING_SHARE))
            coder.repair(model, original, context.part(ALLOTTING_SHARE, 1))
        context.progress(1.0)
        return [*verdicts, *skipped, *coder.verdicts(weights)]

    def _codebooks(self, seed: int) -> Codebooks:
        return Codebooks(
            self.bits,
            self.clusters,
            self.granularity,
            self.group_size,
            self.width,
            self.entries,
            seed,
        )

    def _share_identical(self, model: Model) -> list[Verdict]:
        """Let all readers of identical weights read the first; return verdicts on the others."""
        candidates, _ = self.candidates(model)
        return [
            change(
                gone, f"identical to {kept.name}", before=gone.tensor.nbytes, after=0, error=0.0
            )
            for kept, gone in merge_identical(model, candidates)
        ]

    def _suitable(self, model: Model) -> tuple[list[Weight], list[Verdict]]:
        weights, skipped = self.candidates(model)
        reasons = [self._unsuitable(weight) for weight in weights]
        pairs = list(zip(weights, reasons, strict=True))
        skipped += [skip(weight, reason) for weight, reason in pairs if reason is not None]
        return [weight for weight, reason in pairs if reason is None], skipped

    def _code_within(
        self,
        limit: int,
        model: Model,
        weights: Sequence[Weight],
        coder: Coder[Clustering],
        context: Context,
    ) -> None:
        """Choose a coding for each weight so that the file keeps within a limit, and code.

        Raises:
            ReachError: It cannot.
        """
        concerned = [weight for weight in weights if is_finite(weight.load())]
        setting = self.model_dump_json(exclude={"size_ratio", "max_bytes"})
        allotment = allotment_of(model, concerned, coder.method, setting, context)
        names = len(json.dumps([self.include, self.exclude]))

        def code(chosen: dict[Constant, Choice]) -> int:
            coder.method.chosen = chosen
            coder.code(model, weights, context.part(1, 1))
            return names + coder.reserved_bytes(model, context)

        keep_within(limit, model, allotment, code, name=self.name)

    def _unsuitable(self, weight: Weight) -> str | None:
        if weight.is_depthwise and not self.depthwise:
            return "belongs to a depthwise convolution"
        if weight.size < self.min_elements:
            return f"is tiny ({weight.size} elements)"
        if weight.size % self.width:
            return f"has {weight.size} elements, no multiple of width {self.width}"
        only_rows = set(weight.op_types) == {"Gather"}
        if weight.size * weight.dtype.itemsize > FOLDING_LIMIT and not only_rows:
            return TOO_LARGE
        return None

    def _common_codebook(self, weights: Sequence[Weight]) -> NDArray[np.float64] | None:
        if self.share == "tensor":
            return None
        by_channel = self.granularity == "scale"
        return common_codebook(weights, self.codebooks.size, by_channel=by_channel)

"""The pass: which weights are clustered, how, and whether it pays."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from onnxcomp.errors import OptionError
from onnxcomp.graph import StoreValues, copy_model, count_bytes, raise_opset
from onnxcomp.pipeline import Pass, Stage, Strength, change, skip
from onnxcomp.recovery import relative_error
from onnxcomp.stores import FOLDING_LIMIT, TOO_LARGE
from onnxcomp_passes.cluster.blocks import is_finite
from onnxcomp_passes.cluster.budget import keep_within
from onnxcomp_passes.cluster.calibrating import Calibration
from onnxcomp_passes.cluster.choosing import Allotment
from onnxcomp_passes.cluster.coding import (
    LOWEST_OPSET,
    Coding,
    code_exactly,
    code_groups,
    code_scaled,
    code_tensor,
    code_vectors,
    common_codebook,
)
from onnxcomp_passes.cluster.identical import share_identical
from onnxcomp_passes.cluster.run import Coded, Run

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from onnxcomp.graph import Model, Weight
    from onnxcomp.pipeline import Context
    from onnxcomp.verdicts import Verdict
    from onnxcomp_passes.cluster.curves import Choice

DATA_FREE_SHARE, ALLOTTING_SHARE = 0.1, 0.5
"""Of the progress: for clustering without data, and for choosing bits."""


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
    def codebook_size(self) -> int:
        """Entries of a codebook."""
        return self.clusters or 2 ** (self.bits * self.width)

    def apply(self, model: Model, context: Context) -> list[Verdict]:
        """Cluster every weight that is worth it; with data, repair each for what it now gets."""
        raise_opset(model, LOWEST_OPSET)
        limit = self.max_bytes
        if self.size_ratio is not None:
            limit = int(count_bytes(model) / self.size_ratio)
        verdicts = share_identical(model, self)
        original = copy_model(model)
        weights, skipped = self.candidates(model)
        run = Run(context.seed, self._common_codebook(weights))
        if limit is None:
            found = self._cluster(weights, run, context.part(0, DATA_FREE_SHARE))
        else:
            allotting = context.part(0, ALLOTTING_SHARE)
            found = self._cluster_within(limit, model, weights, run, allotting)
        calibration = Calibration(
            lambda weight, values: self._coding(weight, values, run)[0], run, self.sequential
        )
        begun = DATA_FREE_SHARE if limit is None else ALLOTTING_SHARE
        calibration.apply(model, original, found, context.part(begun, 1))
        context.progress(1.0)
        return [*verdicts, *skipped, *(found[id(weight.tensor)] for weight in weights)]

    def _cluster(
        self, weights: Sequence[Weight], run: Run, context: Context
    ) -> dict[int, Verdict]:
        """Cluster weights without data; return verdicts by the identity of their constants."""
        found: dict[int, Verdict] = {}
        # The largest pays for a table that others share, so that no small one is left for it.
        for weight in sorted(weights, key=lambda each: -each.size):
            found[id(weight.tensor)] = self._compress(weight, run)
            context.progress(len(found) / len(weights))
        return found

    def _cluster_within(
        self, limit: int, model: Model, weights: Sequence[Weight], run: Run, context: Context
    ) -> dict[int, Verdict]:
        """Choose a coding for each weight so that the file keeps within a limit, and cluster.

        Raises:
            ReachError: It cannot.
        """

        def code(weight: Weight, values: NDArray[Any], choice: Choice) -> Coding:
            return self._at(choice)._code(values, weight.output_axis, run)[0]  # noqa: SLF001

        def cluster(chosen: dict[int, Choice]) -> dict[int, Verdict]:
            run.chosen, run.tables = chosen, defaultdict(set)
            return self._cluster(weights, run, context.part(1, 1))

        concerned = [
            weight
            for weight in weights
            if self._unsuitable(weight) is None and is_finite(weight.load())
        ]
        setting = self.model_dump_json(exclude={"size_ratio", "max_bytes"})
        allotment = Allotment(model, concerned, code, setting, context)
        names = len(json.dumps([self.include, self.exclude]))
        return keep_within(
            limit, model, allotment, cluster, context, name=self.name, recipe_bytes=names
        )

    def _compress(self, weight: Weight, run: Run) -> Verdict:
        reason = self._unsuitable(weight)
        if reason is not None:
            return skip(weight, reason)
        values = weight.load()
        if not is_finite(values):
            return skip(weight, "holds NaN or infinity")
        try:
            coded = self._coded(weight, values, run)
        except ValueError as error:
            return skip(weight, str(error))
        present = run.tables[weight.function]
        store = coded.coding.store(values, weight.opset, present)
        before, after = weight.tensor.nbytes, store.added_bytes(present)
        if weight.size * weight.dtype.itemsize > FOLDING_LIMIT and not store.decodes_rows:
            return skip(weight, TOO_LARGE)
        if after >= before:
            return skip(weight, f"would not be smaller ({before} bytes, {after} stored)")
        weight.tensor.values = StoreValues(store)
        present.update(store.tables)
        lost = relative_error(values, store.load())
        return change(weight, coded.how, before=before, after=after, error=lost)

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

    def _coded(self, weight: Weight, values: NDArray[Any], run: Run) -> Coded:
        """Code a weight, unless it has been coded so before."""
        key = id(weight.tensor)
        choice, known = run.chosen.get(key), run.coded.get(key)
        if known is None or known.choice != choice:
            known = run.coded[key] = Coded(choice, *self._coding(weight, values, run))
        return known

    def _coding(self, weight: Weight, values: NDArray[Any], run: Run) -> tuple[Coding, str]:
        """Code values of a weight at the bits that were chosen for it."""
        chosen = run.chosen.get(id(weight.tensor))
        one = self if chosen is None else self._at(chosen)
        return one._code(values, weight.output_axis, run)  # noqa: SLF001 - a copy

    def _at(self, choice: Choice) -> Cluster:
        """Return the same pass with a coding that was chosen."""
        return self.model_copy(update={"bits": choice.bits, "width": choice.width})

    def _code(self, values: NDArray[Any], axis: int, run: Run) -> tuple[Coding, str]:
        size = self.codebook_size
        exact = code_exactly(values, self.clusters or 2**self.bits)
        if exact is not None:
            return exact, f"{len(exact.codebook.entries)} distinct values, stored exactly"
        if self.width > 1:
            along = axis if self.granularity == "scale" else None
            vectors = code_vectors(
                values, size, self.width, self.entries, axis=along, seed=run.seed
            )
            return vectors, f"{size} vectors of {self.width}"
        if self.granularity == "group":
            grouped = code_groups(values, size, self.entries, axis, self.group_size)
            return grouped, f"{grouped.codebook.groups} codebooks of {size}"
        if self.granularity == "tensor" and run.common is None:
            return code_tensor(values, size, self.entries), f"{size} clusters"
        scaled_axis = axis if self.granularity == "scale" else None
        scaled = code_scaled(values, size, self.entries, scaled_axis, run.common)
        channels = "a scale per channel" if scaled_axis is not None else "one scale"
        which = "the model's " if run.common is not None else ""
        return scaled, f"{which}{size} clusters, {channels}"

    def _common_codebook(self, weights: Sequence[Weight]) -> NDArray[np.float64] | None:
        if self.share == "tensor":
            return None
        suitable = [weight for weight in weights if self._unsuitable(weight) is None]
        return common_codebook(
            suitable, self.codebook_size, by_channel=self.granularity == "scale"
        )

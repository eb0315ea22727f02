"""The pass: which weights are clustered, how, and whether it pays."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from glob import escape
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from onnxcomp.errors import OptionError
from onnxcomp.graph import StoreValues, copy_model, raise_opset
from onnxcomp.pipeline import Offer, Pass, Stage, change, skip
from onnxcomp.recovery import add_bias, bias_bytes, repair_at_once, repair_in_sequence
from onnxcomp.statistics import observe
from onnxcomp.stores import FOLDING_LIMIT
from passes.cluster.blocks import is_finite, relative_error
from passes.cluster.coding import (
    LOWEST_OPSET,
    Coding,
    code_exactly,
    code_groups,
    code_scaled,
    code_tensor,
    code_vectors,
)
from passes.cluster.histogram import Histogram
from passes.cluster.identical import share_identical
from passes.cluster.kmeans import cluster_points
from passes.cluster.refining import refine
from passes.cluster.scales import root_mean_square, scaled_histogram

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from onnxcomp.graph import Model, Weight
    from onnxcomp.pipeline import Context
    from onnxcomp.statistics import InputStatistics, Layer
    from onnxcomp.verdicts import Verdict

TOO_LARGE = "is larger than 1 GiB, and ONNX Runtime folds nothing that large"

DATA_FREE_SHARE = 0.1
"""Of the progress, where there is data."""

OFFERED_BITS = (2, 3, 4, 6, 8)


@dataclass
class _Run:
    """What the weights of one run have in common.

    Attributes:
        seed: What all randomness comes from.
        common: The codebook that all share, where they do.
        tables: What decodings share, and the file has by now; a function has its own.
    """

    seed: int
    common: NDArray[np.float64] | None = None
    tables: defaultdict[str, set[tuple[object, ...]]] = field(
        default_factory=lambda: defaultdict(set)
    )


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
        if self.share == "model" and self.width > 1:
            raise OptionError(f"{self.name}: share = 'model' needs width = 1")

    @property
    def codebook_size(self) -> int:
        """Entries of a codebook."""
        return self.clusters or 2 ** (self.bits * self.width)

    def apply(self, model: Model, context: Context) -> list[Verdict]:
        """Cluster every weight that is worth it; with data, repair each for what it now gets."""
        raise_opset(model, LOWEST_OPSET)
        verdicts = share_identical(model, self)
        original = copy_model(model)
        weights, skipped = self.candidates(model)
        verdicts += skipped
        run = _Run(context.seed, self._common_codebook(weights))
        # The largest pays for a table that others share, so that no small one is left for it.
        found: dict[int, Verdict] = {}
        for weight in sorted(weights, key=lambda each: -each.size):
            found[id(weight.tensor)] = self._compress(weight, run)
            context.progress(DATA_FREE_SHARE * len(found) / len(weights))
        self._refine(model, original, run, found, context)
        return verdicts + [found[id(weight.tensor)] for weight in weights]

    def _refine(
        self,
        model: Model,
        original: Model,
        run: _Run,
        found: dict[int, Verdict],
        context: Context,
    ) -> None:
        """Code what was clustered once more, for the outputs of the layers."""

        def concerns(weight: Weight) -> bool:
            verdict = found.get(id(weight.tensor))
            return verdict is not None and verdict.verdict == "changed" and bool(verdict.error)

        def repair(layer: Layer, twin: Layer, inputs: InputStatistics) -> None:
            key = id(layer.weight.tensor)
            found[key] = self._recode(layer, twin.weight.load(), inputs, run, found[key])

        def tell(share: float) -> None:
            context.progress(DATA_FREE_SHARE + (1 - DATA_FREE_SHARE) * share)

        if context.samples is not None and self.sequential:
            repair_in_sequence(
                model, original, context.samples, repair, concerns=concerns, progress=tell
            )
            return
        statistics = context.statistics
        if context.samples is not None:
            statistics = observe(original, context.samples, tell)
        if statistics is not None:
            repair_at_once(model, original, statistics, repair, concerns=concerns, progress=tell)

    def _recode(
        self,
        layer: Layer,
        values: NDArray[Any],
        inputs: InputStatistics,
        run: _Run,
        verdict: Verdict,
    ) -> Verdict:
        """Give a clustered weight better codes of the same size; return the new verdict."""
        weight = layer.weight
        if inputs.fit is None:
            reason = f"{verdict.reason}; without data, since no sample runs its layer"
            return verdict.model_copy(update={"reason": reason})
        axis = weight.output_axis
        refined = refine(layer, values, inputs, lambda each: self._code(each, axis, run)[0])
        present = run.tables[weight.function]
        store = refined.coding.store(values, weight.opset, present)
        weight.tensor.values = StoreValues(store)
        after = store.added_bytes(present)
        how = f"{verdict.reason}; {refined.how}"
        added = sum(bias_bytes(use, weight.dtype) for use in layer.uses)
        if refined.shift.any() and after + added < verdict.bytes_before:
            for use in layer.uses:
                add_bias(use, refined.shift, weight.dtype)
            after, how = after + added, f"{how}, mean corrected"
        lost = relative_error(values, store.load())
        return change(weight, how, before=verdict.bytes_before, after=after, error=lost)

    def offers(self, weight: Weight, context: Context) -> Iterator[Offer]:
        """Offer the weight at 2, 3, 4, 6 and 8 bits, otherwise as this pass is set up."""
        before = weight.tensor.held
        for bits in OFFERED_BITS:
            if bits * self.width > 8:  # noqa: PLR2004 - a byte
                break
            options = {**self.model_dump(), "bits": bits, "clusters": None, "share": "tensor"}
            configured = type(self).model_validate({**options, "include": (escape(weight.name),)})
            verdict = configured._compress(weight, _Run(context.seed))  # noqa: SLF001
            weight.tensor.values = before
            if verdict.verdict == "changed" and verdict.error is not None:
                yield Offer(configured, verdict.bytes_after, verdict.error)

    def _compress(self, weight: Weight, run: _Run) -> Verdict:
        reason = self._unsuitable(weight)
        if reason is not None:
            return skip(weight, reason)
        values = weight.load()
        if not is_finite(values):
            return skip(weight, "holds NaN or infinity")
        try:
            coding, how = self._code(values, weight.output_axis, run)
        except ValueError as error:
            return skip(weight, str(error))
        present = run.tables[weight.function]
        store = coding.store(values, weight.opset, present)
        before, after = weight.tensor.nbytes, store.added_bytes(present)
        if weight.size * weight.dtype.itemsize > FOLDING_LIMIT and not store.decodes_rows:
            return skip(weight, TOO_LARGE)
        if after >= before:
            return skip(weight, f"would not be smaller ({before} bytes, {after} stored)")
        weight.tensor.values = StoreValues(store)
        present.update(store.tables)
        lost = relative_error(values, store.load())
        return change(weight, how, before=before, after=after, error=lost)

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

    def _code(self, values: NDArray[Any], axis: int, run: _Run) -> tuple[Coding, str]:
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
        """Fit one codebook to all weights, each divided by the scales that it will have."""
        if self.share == "tensor":
            return None
        histogram = Histogram()
        for weight in weights:
            values = weight.load() if self._unsuitable(weight) is None else None
            if values is not None and is_finite(values):
                axis = weight.output_axis if self.granularity == "scale" else None
                histogram.merge(scaled_histogram(values, root_mean_square(values, axis)))
        points, counts = histogram.points()
        if not len(points):
            return None
        return cluster_points(points, counts, self.codebook_size, keep_zero=True)

"""What coding a weight lost, carried by a branch of low rank beside its layer.

The branch is the layer again, with the weight that is missing in two factors, and what both give
is added. With data it is the best one for what the layer multiplies (LQER: Zhang et al.,
"Low-rank quantization error reconstruction for LLMs", 2024), without for the weight (Yao et al.,
"ZeroQuant-V2", 2023).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from onnxcomp.graph import StoreValues, store_of
from onnxcomp.graph.operators import RECURRENCES
from onnxcomp.layerwise import repair_layers
from onnxcomp.pipeline import change, skip
from onnxcomp.recovery import (
    Problem,
    add_bias,
    bias_bytes,
    bias_of,
    held_out_error,
    relative_error,
    takes_bias,
)
from onnxcomp.statistics import layers, one_thread
from onnxcomp_passes.factorize.branching import add_branch
from onnxcomp_passes.factorize.kinds import PAIR, Choice, rank_within, ranks_of
from onnxcomp_passes.factorize.splitting import factor_name, replace_constants

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from onnxcomp.graph import Model
    from onnxcomp.pipeline import Context
    from onnxcomp.statistics import InputStatistics, Layer, Moments, Use
    from onnxcomp.stores import Store
    from onnxcomp.verdicts import Verdict
    from onnxcomp_passes.factorize.pieces import Solved
    from onnxcomp_passes.factorize.sites import Site

    Floats = NDArray[np.float64]

DEFAULT_SHARE = 0.05
"""The share of a layer's weights that a branch has, unless something else is asked for."""

MULTIPLE = 4
"""What ranks of convolutions are multiples of; those that are computed fastest are too high."""


@dataclass(frozen=True, eq=False)
class Coded:
    """A layer that coding has changed.

    Args:
        site: Its weight and the operators that read it.
        layer: The same, as what is observed.
        twin: The layer from before.
        store: How the weight is coded.
        choice: What the branch is.
    """

    site: Site
    layer: Layer
    twin: Layer
    store: Store
    choice: Choice

    def matrices(self) -> tuple[Floats, Floats]:
        """Return the weights from before and those of now, shape (groups, outputs, inputs)."""
        form = self.site.form
        before, now = (form.to_matrices(each.weight.load()) for each in (self.twin, self.layer))
        return before.astype(np.float64), now.astype(np.float64)


@dataclass(frozen=True, eq=False)
class Branch:
    """What carries what coding lost.

    Args:
        solved: Its weights.
        shifts: For each use what is added to its bias, shape (groups, outputs); none where
            nothing is.
    """

    solved: Solved
    shifts: tuple[Floats, ...] = ()


@dataclass(eq=False)
class Residuals:
    """Finds branches for coded layers, and puts them there.

    Args:
        source: The model before its weights were coded.
        share: The share of a layer's weights that its branch has.
        sequential: Whether each branch is fitted to what the layers before now give.

    Attributes:
        coded: The layers that may have one, by the identity of their constants.
        found: The branches, likewise; None where one gains nothing.
        added: Bytes of the biases that were added, likewise.
    """

    source: Model
    share: float
    sequential: bool
    coded: dict[int, Coded] = field(default_factory=dict)
    found: dict[int, Branch | None] = field(default_factory=dict)
    added: Counter[int] = field(default_factory=Counter)

    def carry(
        self, model: Model, subjects: Sequence[tuple[Site, Layer]], context: Context
    ) -> list[Verdict]:
        """Give coded layers branches that carry what coding lost of their weights.

        Args:
            model: The model; changed in place.
            subjects: Weights and their layers.
            context: Samples, or statistics of the model.
        """
        twins = {layer.key: layer for layer in layers(self.source)}
        names = {each.name for scope in model.all_scopes() for each in scope.constants}
        verdicts, made = [], {}
        for site, layer in subjects:
            try:
                one = self._coded(site, layer, twins.get(layer.key), names)
            except ValueError as error:
                verdicts.append(skip(site.weight, str(error)))
            else:
                self.coded[id(site.weight.tensor)] = one
        self._find(model, context)
        scopes = {id(node): scope for scope in model.all_scopes() for node in scope.nodes}
        for key, one in self.coded.items():
            branch, tensor = self.found[key], one.site.weight.tensor
            verdicts.append(self._verdict(one, branch))
            if branch is not None:
                arrays = branch.solved.arrays
                made[key] = [tensor, *add_branch(one.site, one.choice, arrays, scopes)]
        replace_constants(model, made)
        return verdicts

    def _coded(self, site: Site, layer: Layer, twin: Layer | None, names: set[str]) -> Coded:
        """Return a layer as what may have a branch.

        Raises:
            ValueError: It cannot; the message says why, in words that follow the weight's name.
        """
        store = store_of(site.weight.tensor)
        if store is None:
            raise ValueError("is not coded")
        if site.op in RECURRENCES:
            raise ValueError(f"belongs to {site.op}, beside which there can be no branch")
        if factor_name(site.weight.name, 0) in names:
            raise ValueError("has a branch already")
        if twin is None or twin.weight.shape != site.weight.shape:
            raise ValueError("has no weight of its name and shape in the model of --residual")
        if len(twin.uses) != len(layer.uses):
            raise ValueError("is read otherwise in the model of --residual")
        if np.array_equal(twin.weight.load(), site.weight.load()):
            raise ValueError("lost nothing by being coded")
        kind = "channel" if site.is_convolution else PAIR
        ranks = ranks_of(site, kind, MULTIPLE)
        rank = rank_within(site, kind, ranks, self.share * site.weight.size)
        if rank is None:
            raise ValueError(f"is too small for a branch of {self.share:.0%} of its weights")
        return Coded(site, layer, twin, store, Choice(kind, rank))

    def _find(self, model: Model, context: Context) -> None:
        """Find branches; until they are added, weights hold what both come to."""
        repair_layers(
            model,
            self.source,
            self._repair,
            context=context,
            sequential=self.sequential,
            concerns=lambda weight: id(weight.tensor) in self.coded,
        )
        with one_thread():
            for key, one in self.coded.items():
                if key not in self.found:
                    self._keep(one, _alone(one))

    def _repair(self, layer: Layer, twin: Layer, inputs: InputStatistics) -> None:
        del twin
        if inputs.fit is not None:
            one = self.coded[id(layer.weight.tensor)]
            self._keep(one, _fitted(one, inputs, inputs.fit))

    def _keep(self, one: Coded, branch: Branch | None) -> None:
        weight = one.site.weight
        key = id(weight.tensor)
        self.found[key] = branch
        if branch is None:
            return
        for use, shift in zip(one.layer.uses, branch.shifts, strict=False):
            self.added[key] += bias_bytes(use, weight.dtype)
            add_bias(use, shift.reshape(use.form.matrices[:2]), weight.dtype)
        both = weight.load() + one.site.form.to_tensor(branch.solved.dense)
        weight.tensor.values = both.astype(weight.dtype)

    def _verdict(self, one: Coded, branch: Branch | None) -> Verdict:
        """Let a weight be coded as it was, and say what its branch is."""
        weight, rank = one.site.weight, one.choice.rank
        if branch is None:
            return skip(weight, f"gains nothing from a branch of rank {rank}")
        error = relative_error(one.twin.weight.load(), weight.load())
        weight.tensor.values = StoreValues(one.store)
        before, added = weight.tensor.nbytes, self.added[id(weight.tensor)]
        return change(
            weight,
            f"a branch of rank {rank} carries what coding lost",
            before=before,
            after=before + one.choice.nbytes(one.site) + added,
            error=error,
        )


def _fitted(one: Coded, inputs: InputStatistics, moments: Moments) -> Branch | None:
    """Return the branch that is best for what a layer multiplies; None if it gains nothing."""
    site, uses = one.site, one.layer.uses
    shifts = site.op != "ConvTranspose" and all(takes_bias(use) for use in uses)
    before, now = one.matrices()
    problem = Problem.of(before, moments, shifts=shifts)
    solved = one.choice.solve(site, problem.target() - now, problem.damped)
    both = now + solved.dense
    offsets = [_offset(*pair) for pair in zip(uses, one.twin.uses, strict=True)]
    shift = problem.shift(both) if shifts else -offsets[0]
    if inputs.held_out is not None:
        without = held_out_error(before, now, -offsets[0], inputs.held_out)
        if held_out_error(before, both, shift, inputs.held_out) >= without:
            return None
    return Branch(solved, tuple(each + shift for each in offsets) if shifts else ())


def _alone(one: Coded) -> Branch:
    """Return the branch that is best for a weight of which nothing else is known."""
    before, now = one.matrices()
    return Branch(one.choice.solve(one.site, before - now, [None] * len(now)))


def _offset(use: Use, other: Use) -> Floats:
    """Return what the bias of another use is more; zeros where that is not known."""
    now, before = bias_of(use), bias_of(other)
    if now is None or before is None or now.shape != before.shape:
        return np.zeros(use.form.matrices[:2])
    return before - now

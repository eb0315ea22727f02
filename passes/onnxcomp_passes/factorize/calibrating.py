"""Layers of low rank that fit what they now get, one after the other."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxcomp.layerwise import repair_layers
from onnxcomp.recovery import add_bias, best_repair, bias_bytes, relative_error
from onnxcomp.statistics import one_thread
from onnxcomp_passes.factorize.menus import problem_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from onnxcomp.graph import Model, Weight
    from onnxcomp.pipeline import Context
    from onnxcomp.recovery import Problem
    from onnxcomp.statistics import InputStatistics, Layer
    from onnxcomp_passes.factorize.kinds import Choice
    from onnxcomp_passes.factorize.pieces import Solved
    from onnxcomp_passes.factorize.sites import Site

    Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Found:
    """The layers that one became.

    Args:
        arrays: Their weights, as of `Solved`.
        error: Relative Frobenius error of their product.
        how: What was done, for the verdict.
        added: Bytes of the biases that were added.
    """

    arrays: tuple[NDArray[Any], ...]
    error: float
    how: str
    added: int = 0


@dataclass(eq=False)
class Calibration:
    """Finds the weights of chosen layers; until they are split, each holds their product.

    Args:
        sites: What is factorized, by the identity of the weight's constant.
        choices: What it becomes, likewise.
        sequential: Whether each layer is fitted to what those before now give.

    Attributes:
        found: What was found, likewise.
    """

    sites: Mapping[int, Site]
    choices: Mapping[int, Choice]
    sequential: bool
    found: dict[int, Found] = field(default_factory=dict)

    def run(self, model: Model, original: Model, context: Context) -> None:
        """Find all of them.

        Args:
            model: The model; its weights become those of low rank, and biases are corrected.
            original: A copy of it from before.
            context: Samples, or statistics of the original.
        """
        self._repair(model, original, context)
        with one_thread():
            for key in self.sites:
                if key not in self.found:
                    self.solve_alone(key)

    def _repair(self, model: Model, original: Model, context: Context) -> None:
        repair_layers(
            model,
            original,
            self._repair_layer,
            context=context,
            sequential=self.sequential,
            concerns=self._concerns,
        )

    def _concerns(self, weight: Weight) -> bool:
        return id(weight.tensor) in self.sites

    def solve_alone(self, key: int) -> Found:
        """Find the weights of one layer without data."""
        site = self.sites[key]
        weights = site.form.to_matrices(site.weight.load()).astype(np.float64)
        solved = self.choices[key].solve(site, weights, [None] * len(weights))
        self._keep(key, site, solved, "")
        return self.found[key]

    def _repair_layer(self, layer: Layer, twin: Layer, inputs: InputStatistics) -> None:
        key = id(layer.weight.tensor)
        site, choice = self.sites[key], self.choices[key]
        problem = problem_of(site, layer, inputs)
        if problem is None:
            return
        del twin
        made = (
            ((solved, how), solved.dense) for solved, how in _candidates(site, choice, problem)
        )
        (solved, how), shift = best_repair(problem, made, inputs.held_out)
        added = 0
        if shift.any():
            added = sum(bias_bytes(use, site.weight.dtype) for use in layer.uses)
        self._keep(key, site, solved, how, added)
        if shift.any():
            for use in layer.uses:
                add_bias(use, shift.reshape(layer.form.matrices[:2]), site.weight.dtype)

    def _keep(self, key: int, site: Site, solved: Solved, how: str, added: int = 0) -> None:
        values = site.weight.load()
        dense = site.form.to_tensor(solved.dense)
        error = relative_error(values, dense)
        arrays = tuple(each.astype(site.weight.dtype) for each in solved.arrays)
        self.found[key] = Found(arrays, error, how, added)
        site.weight.tensor.values = dense.astype(site.weight.dtype)


def _candidates(site: Site, choice: Choice, problem: Problem) -> Iterator[tuple[Solved, str]]:
    """Yield layers that could stand for one: by its outputs, by what it now gets, by its weights.

    Args:
        site: Where the weight is.
        choice: What it becomes.
        problem: The layer as a least-squares problem.
    """
    weights, seconds = problem.weights, problem.damped
    yield choice.solve(site, weights, seconds), "fitted to its outputs"
    if problem.is_paired:
        yield choice.solve(site, problem.target(), seconds), "fitted to what it now gets"
    yield choice.solve(site, weights, [None] * len(weights)), "fitted to its weights"

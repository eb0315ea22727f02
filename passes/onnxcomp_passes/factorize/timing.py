"""How much faster several small layers are than one: both are made alone, and timed in turn."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxcomp.benchmarking import time_ratio
from onnxcomp.graph import Variable, copy_model, isolate, model_bytes
from onnxcomp.statistics import one_thread
from onnxcomp_passes.factorize.splitting import split

if TYPE_CHECKING:
    from onnxcomp.graph import Model
    from onnxcomp_passes.factorize.extents import ShapeWatch
    from onnxcomp_passes.factorize.kinds import Choice
    from onnxcomp_passes.factorize.sites import Site

FASTER = 1.1
"""How many times faster is faster."""

GIVEN, RESULT = "onnxcomp.given", "onnxcomp.result"


class Stopwatch:
    """Measures what choices would gain, each kind of layer once.

    Args:
        model: The model; not changed.
        shapes: What was observed of each layer, by the identity of its weight's constant.
    """

    def __init__(self, model: Model, shapes: dict[int, ShapeWatch]) -> None:
        self._model = model
        self._shapes = shapes
        self._known: dict[object, float] = {}
        self._lone: dict[int, Model] = {}

    def why_not(self, site: Site) -> str | None:
        """Return why a layer cannot be timed; None if it can."""
        watch = self._shapes.get(id(site.weight.tensor))
        if watch is None or not watch.shapes:
            return "nothing runs its layer alone"
        if len(self._alone(site).inputs) != 1:
            return "its layer reads more than one input"
        return None

    def speedup(self, site: Site, choice: Choice) -> float:
        """Return how many times faster a choice computes, on one thread of the CPU."""
        watch = self._shapes[id(site.weight.tensor)]
        key = _key(site, watch, choice)
        if key not in self._known:
            self._known[key] = self._measured(site, watch, choice)
        return self._known[key]

    def is_faster(self, site: Site, choice: Choice) -> bool:
        """Tell whether it is worth it."""
        return self.speedup(site, choice) >= FASTER

    def _measured(self, site: Site, watch: ShapeWatch, choice: Choice) -> float:
        dense = self._alone(site)
        changed = copy_model(dense)
        random = np.random.default_rng(0)
        node = next(
            node
            for node in changed.nodes
            if any(each.name == site.weight.name for each in node.inputs)
        )
        arrays = [random.standard_normal(piece.shape) * 0.1 for piece in choice.pieces(site)]
        if site.op == "Gather":
            arrays.reverse()
        split(replace(site, nodes=(node,)), choice, arrays, {id(node): changed})
        feed = {GIVEN: random.standard_normal(watch.shapes[0]).astype(site.weight.dtype)}
        with one_thread():
            return 1 / time_ratio(model_bytes(dense), model_bytes(changed), [feed]).median

    def _alone(self, site: Site) -> Model:
        """Return a model of nothing but the layer."""
        key = id(site.weight.tensor)
        if key not in self._lone:
            use = self._shapes[key].use
            read = use.activations[0]
            rank = len(self._shapes[key].shapes[0])
            dtype = np.dtype(site.weight.dtype)
            fed, given = Variable(GIVEN, dtype, [None] * rank), Variable(RESULT, dtype)
            self._lone[key] = isolate(self._model, use.node, read, fed, given)
        return self._lone[key]


def _key(site: Site, watch: ShapeWatch, choice: Choice) -> tuple[Any, ...]:
    attributes = sorted((name, str(value)) for name, value in watch.use.node.attrs.items())
    return (site.op, site.weight.shape, *attributes, *watch.shapes[:1], choice)

"""The library call that observes a model once, for passes to calibrate on later or elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnxcomp.api.measuring import measured
from onnxcomp.api.workbench import Workbench
from onnxcomp.graph import load_model
from onnxcomp.runtime import open_session, samples_for
from onnxcomp.statistics import observe

if TYPE_CHECKING:
    from onnxcomp.api.steps import Progress
    from onnxcomp.statistics import Statistics


def statistics(
    model: Any,
    data: Any,
    *,
    samples: int | None = None,
    progress: Progress = lambda _what, _share: None,
) -> Statistics:
    """Observe what the layers of a model read and give.

    Args:
        model: As for `compress`.
        data: Calibration samples: whatever `onnxcomp.runtime.read_samples` takes.
        samples: Use the first so many of them; None for all.
        progress: Told what is being done and the share of it that is done.

    Raises:
        OnnxcompError: The model does not run, or the data does not fit it.
    """
    with Workbench() as bench:
        graph = load_model(model)
        session = open_session(measured(graph, bench, model)[0])
        read = samples_for(session, data, samples)
        return observe(graph, read, lambda share: progress("observing", share))

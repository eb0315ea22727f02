"""What holds for every pass on every model."""

from __future__ import annotations

from collections import Counter
from math import isfinite
from typing import TYPE_CHECKING

import numpy as np
import onnx

from onnxcomp.api import Settings, compress
from onnxcomp.errors import OptionError
from onnxcomp.graph import load_model, weights
from onnxcomp.pipeline import Context
from onnxcomp.runtime import open_session, read_samples
from onnxcomp.testing.expectations import expect
from onnxcomp.validation import validate

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from onnxcomp.api import Compressed
    from onnxcomp.graph import Weight
    from onnxcomp.pipeline import Pass
    from onnxcomp.report import Report, Step
    from onnxcomp.runtime import Feed, Session
    from onnxcomp.testing.small_model import SmallModel

UNTIMED = Settings(bench=False)
OWN_METADATA = "onnxcomp."
RESULT = "result/model.onnx"
MOST_DIFFERENCE = 1e-9
"""Relative difference of two errors that are computed alike."""

FIRST_IR_OF_OVERRIDING = 4
"""From this IR version on, an initializer that is an input too may be overridden."""

OVERRIDDEN = np.float32(0.5)
"""The share that an initializer has of its values, in reverse, when it is overridden."""

LEAST_EFFECT = 0.05
"""Of overriding a result, of that of the original; an initializer that was folded has none."""

METADATA_BYTES = 1024
"""What the recipe in the metadata may take."""

NAME_BYTES = 64
"""What the names and shapes of one tensor may take."""

NODE_BYTES = 256
"""What a node may take: its operator, names and attributes."""


def check_result(subject: Pass, model: SmallModel, folder: Path) -> None:
    """The result is a valid model with the original's interface, and the report on it is true.

    The same bytes come out each time, and no more of them from what came out.
    """
    original, before = _load(model, folder)
    compressed = _run(subject, model, folder)
    (folder / RESULT).parent.mkdir()
    after = _load(model, folder)[0]
    expect(after == original, "the model that came was changed")
    _check_verdicts(subject, compressed.report.steps[0], before)
    _check_size(subject, compressed, folder, abs(_removed_nodes(compressed, model, folder)))
    _check_interface(original, onnx.load(folder / RESULT))
    _check_outputs(model, folder)
    _check_overriding(original, model, folder)
    _check_repeats(subject, model, folder)


def _check_repeats(subject: Pass, model: SmallModel, folder: Path) -> None:
    (folder / "second").mkdir()
    _run(subject, model, folder).save(folder / "second" / "model.onnx")
    first, second = (_files(folder / name) for name in ("result", "second"))
    expect(first == second, "two runs give different bytes")
    report = _again(subject, model, folder / RESULT)
    if report is not None and subject.saves_bytes:
        grown = report.output.bytes - report.source.bytes
        expect(grown <= 0, f"a second run makes the file {grown} bytes larger")


def _again(subject: Pass, model: SmallModel, result: Path) -> Report | None:
    """Run a pass on its own result; None where it refuses that in one line."""
    try:
        again = compress(result, [subject], data=list(model.feeds), settings=UNTIMED)
    except OptionError as error:
        expect("\n" not in str(error), f"it refuses its own result in several lines: {error}")
        return None
    return again.report


def check_selection(subject: Pass, model: SmallModel, folder: Path) -> None:
    """A pass that may change no tensor changes nothing, not a byte of the file."""
    source = model.source(folder)
    for options in ({"exclude": ("*",)}, {"include": ("no tensor is called so",)}):
        limited = subject.model_copy(update=options)
        compressed = compress(source, [limited], data=list(model.feeds), settings=UNTIMED)
        step = compressed.report.steps[0]
        expect(step.status == "nothing", f"{options} leaves the status at {step.status!r}")
        expect(not step.changed, f"{options} leaves tensors changed")
        if isinstance(source, bytes):
            expect(compressed.to_bytes() == source, f"{options} changes the file")
    names = _changed(subject, model, folder)
    for name in names[:1]:
        found = set(_changed(subject, model, folder, include=(name,)))
        # What takes several tensors, such as folding one into another, does not happen to one.
        fewest = {name} if subject.saves_bytes else set()
        expect(fewest <= found <= {name}, f"include = [{name!r}] changes {sorted(found)}")
        found = set(_changed(subject, model, folder, include=tuple(names)))
        expect(found == set(names), f"include = {names} changes {sorted(found)}")
        found = set(_changed(subject, model, folder, exclude=(name,)))
        expect(found <= set(names) - {name}, f"exclude = [{name!r}] changes {sorted(found)}")


def _changed(
    subject: Pass,
    model: SmallModel,
    folder: Path,
    include: tuple[str, ...] = (),
    exclude: tuple[str, ...] = (),
) -> list[str]:
    """Return the names of what a pass changes of the tensors that it is limited to."""
    limited = subject.model_copy(update={"include": include, "exclude": exclude})
    source = model.source(folder)
    samples = None
    if subject.needs_data:
        samples = read_samples(list(model.feeds), open_session(source).inputs)
    verdicts = limited.apply(load_model(source), Context(samples))
    return [each.name for each in verdicts if each.verdict == "changed"]


def _run(subject: Pass, model: SmallModel, folder: Path) -> Compressed:
    compressed = compress(
        model.source(folder), [subject], data=list(model.feeds), settings=UNTIMED
    )
    _check_kept(compressed.report.steps[0], max(0, _removed_nodes(compressed, model, folder)))
    return compressed


def _check_kept(step: Step, removed: int) -> None:
    expect(step.status != "rolled_back", f"the step was rolled back: {step.reason}")
    is_changed = bool(step.changed) or removed > 0
    expect(is_changed == (step.status == "applied"), f"status {step.status!r} is wrong")
    is_told = f"{removed} of " in step.reason and "nodes removed" in step.reason
    expect(is_told == (removed > 0), f"{removed} nodes are gone, and it says {step.reason!r}")


def _removed_nodes(compressed: Compressed, model: SmallModel, folder: Path) -> int:
    """Count the operators that are gone; less than none where there are more."""
    before = load_model(model.source(folder)).count_nodes()
    return before - compressed.graph.count_nodes()


def _load(model: SmallModel, folder: Path) -> tuple[onnx.ModelProto, list[Weight]]:
    source = model.source(folder)
    proto = onnx.load_from_string(source) if isinstance(source, bytes) else onnx.load(source)
    return proto, list(weights(load_model(source)))


def _check_verdicts(subject: Pass, step: Step, before: list[Weight]) -> None:
    expected = Counter(weight.name for weight in before)
    found = Counter(each.name for each in step.tensors)
    expect(found == expected, f"verdicts on {found}, weights are {expected}")
    for each in step.tensors:
        about = f"the verdict on {each.name!r}"
        expect(each.reason, f"{about} gives no reason")
        expect(min(each.bytes_before, each.bytes_after) >= 0, f"{about} has less than no bytes")
        if each.verdict == "skipped":
            expect(each.bytes_before == each.bytes_after, f"{about} skipped it and saved bytes")
            continue
        error = each.error
        expect(error is not None and isfinite(error) and error >= 0, f"{about}: error {error}")
        smaller = each.bytes_after < each.bytes_before
        expect(smaller or not subject.saves_bytes, f"{about} saves no bytes")


def _check_size(subject: Pass, compressed: Compressed, folder: Path, nodes: int) -> None:
    report = compressed.report
    sizes = f"{report.source.bytes} bytes became {report.output.bytes}"
    expect(report.output.bytes <= report.source.bytes or not subject.saves_bytes, sizes)
    written = compressed.save(folder / RESULT).output
    # External data that nothing changed may still be laid out anew.
    if report.steps[0].status == "applied":
        expect(written.bytes == report.output.bytes, f"{sizes}, but {written.bytes} were written")
        changed = report.steps[0].changed
        claimed = sum(each.bytes_after - each.bytes_before for each in changed)
        off = abs(claimed - (report.output.bytes - report.source.bytes))
        allowed = METADATA_BYTES + NAME_BYTES * len(changed) + NODE_BYTES * nodes
        expect(off <= allowed, f"{sizes}, but the verdicts are {off} bytes off")


def _check_interface(original: onnx.ModelProto, result: onnx.ModelProto) -> None:
    expect(_inputs(result) == _inputs(original), "the inputs were changed")
    expect(list(result.graph.output) == list(original.graph.output), "the outputs were changed")
    metadata = {entry.key: entry.value for entry in original.metadata_props}
    kept = {
        entry.key: entry.value
        for entry in result.metadata_props
        if entry.key in metadata or not entry.key.startswith(OWN_METADATA)
    }
    expect(kept == metadata, f"the metadata {metadata} became {kept}")


def _inputs(proto: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Return what a caller feeds or may feed: before IR version 4 all initializers are inputs."""
    held = {tensor.name for tensor in proto.graph.initializer}
    is_old = proto.ir_version < FIRST_IR_OF_OVERRIDING
    return [each for each in proto.graph.input if not (is_old and each.name in held)]


def _check_outputs(model: SmallModel, folder: Path) -> None:
    """Check and run the file that was written; nothing that the run before found is believed."""
    source, path = model.source(folder), folder / RESULT
    onnx.checker.check_model(path)
    session = open_session(source)
    samples = read_samples(list(model.feeds), session.inputs)
    (validation,) = validate(source, path, samples)
    expect(validation.problem is None, f"{validation.problem}")


def _check_overriding(original: onnx.ModelProto, model: SmallModel, folder: Path) -> None:
    """Check that other values of an initializer still do something like what they did.

    Of a result with few bits, or little rank, no more can be said.
    """
    fed = {each.name for each in _inputs(original)}
    sessions = [open_session(source) for source in (model.source(folder), folder / RESULT)]
    for tensor in [each for each in original.graph.initializer if each.name in fed]:
        values = onnx.numpy_helper.to_array(tensor)
        other = {tensor.name: np.ascontiguousarray(values[::-1] * OVERRIDDEN, values.dtype)}
        wanted, found = (_moves(session, model.feeds[0], other) for session in sessions)
        agrees = np.linalg.norm(found) > LEAST_EFFECT * np.linalg.norm(wanted)
        expect(agrees, f"{tensor.name!r} cannot be overridden")


def _moves(session: Session, feed: Feed, other: Feed) -> NDArray[np.float64]:
    """Return by how much other values of initializers move the outputs."""
    before, after = session.run(feed), session.run({**feed, **other})
    moved = [np.ravel(after[name].astype(np.float64) - before[name]) for name in before]
    return np.concatenate(moved)


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}

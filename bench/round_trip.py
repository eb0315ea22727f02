"""Does reading and writing a model change anything? On every model of ONNX's backend test data.

Each model is taken as it is and with its weight-like inputs made initializers, and goes through a
real import and export: directly, through a copy, and through files with external data. The
message must come back field for field, and ONNX Runtime must give bit-identical outputs or refuse
the result with the words with which it refuses the original.

Run: python bench/round_trip.py [--only SUBSTRING] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
from backend_models import NEWEST_IR, Case, cases, forms
from onnx import numpy_helper

from onnxcomp.errors import OnnxcompError
from onnxcomp.graph import copy_model, load_model, save_model
from onnxcomp.graph.external import DataFiles
from onnxcomp.graph.reading import read_model
from onnxcomp.graph.writing import write_model
from onnxcomp.runtime import open_session

if TYPE_CHECKING:
    from collections.abc import Callable

REASON_LENGTH = 90
SMALLEST_EXTERNAL = 128


@dataclass
class Tally:
    """What came of one way through: models by outcome."""

    identical: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Outcome:
    """What ONNX Runtime makes of a model: outputs in a comparable form, or its refusal."""

    outputs: tuple[Any, ...] | None
    refusal: str = ""

    @property
    def summary(self) -> str:
        """The refusal, or that there is none."""
        return self.refusal or "other outputs"


@dataclass(frozen=True)
class Passage:
    """A model before and after its way through, and the first field that differs."""

    before: bytes | Path
    after: bytes | Path
    difference: str


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="models whose name contains this")
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    # Without this ONNX Runtime refuses a tenth of the models, for an opset of the latest ONNX.
    os.environ["ALLOW_RELEASED_ONNX_OPSET_ONLY"] = "0"
    tallies: dict[tuple[str, str], Tally] = {}
    with TemporaryDirectory() as scratch:
        for case in cases():
            if arguments.only in case.name:
                for form, shaped in forms(case):
                    measure(form, shaped, tallies, Path(scratch))
    print_table(tallies)
    if arguments.json:
        arguments.json.write_text(json.dumps(as_json(tallies), indent=1))
    return int(any(tally.failed for tally in tallies.values()))


def measure(form: str, case: Case, tallies: dict[tuple[str, str], Tally], scratch: Path) -> None:
    """Send one model every way through and note what comes out."""
    untouched = serialised(case.proto)
    originals: dict[bytes | Path, Outcome] = {}
    folder = Path(mkdtemp(dir=scratch))
    ways: tuple[tuple[str, Callable[[Case], Passage]], ...] = (
        ("read, write", directly),
        ("read, copy, write", copied),
        ("external data", partial(through_files, folder=folder)),
    )
    for way, send in ways:
        tally = tallies.setdefault((form, way), Tally())
        try:
            passage = send(case)
        except OnnxcompError as error:
            tally.failed.append(f"{case.name}: {error}")
            continue
        if passage.before not in originals:
            originals[passage.before] = run(passage.before, case.feed)
        before, after = originals[passage.before], run(passage.after, case.feed)
        if passage.difference:
            tally.failed.append(f"{case.name}: {passage.difference}")
        elif before != after:
            tally.failed.append(f"{case.name}: {before.summary} before, {after.summary} after")
        elif before.outputs is None:
            tally.refused[kind_of(before.refusal)] += 1
        else:
            tally.identical += 1
    if serialised(case.proto) != untouched:
        tallies[form, ways[0][0]].failed.append(f"{case.name}: the caller's message was changed")
    shutil.rmtree(folder)


def kind_of(refusal: str) -> str:
    """Return a refusal without what differs from model to model."""
    text = re.sub(r"^cannot (load|run) the model on cpu: ", "", refusal)
    text = text.removeprefix("Load model from the model failed:")
    text = re.sub(r"onnxruntime::\S+\(.*?\) |void |\[ShapeInferenceError\] ", "", text)
    text = re.sub(r"(implementation for) .*", r"\1 an operator", text)
    text = re.sub(r"(Fatal error:) .*?( is not a registered)", r"\1 an operator\2", text)
    text = re.sub(r"(In Node,|Node:|node with name|with name) .*", "in a node", text)
    return text[:REASON_LENGTH]


def directly(case: Case) -> Passage:
    after = write_model(read_model(case.proto, DataFiles(None)))
    return Passage(serialised(case.proto), serialised(after), first_difference(case.proto, after))


def copied(case: Case) -> Passage:
    before = serialised(case.proto)
    after = write_model(copy_model(load_model(before)))
    return Passage(before, serialised(after), first_difference(case.proto, after))


def through_files(case: Case, folder: Path) -> Passage:
    """Send a model through files, its initializers in one data file or in a file each.

    The smallest stay inside: ONNX Runtime refuses shapes in external data.
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(case.proto)
    for tensor in proto.graph.initializer:
        if tensor.data_type != onnx.TensorProto.STRING and not tensor.raw_data:
            plain = numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name)
            plain.doc_string = tensor.doc_string
            tensor.CopyFrom(plain)
    # Names of one length: messages of ONNX Runtime are cut to a length after they name the file.
    before, after = folder / "old" / "model.onnx", folder / "new" / "model.onnx"
    before.parent.mkdir()
    after.parent.mkdir()
    onnx.save_model(
        proto,
        before,
        save_as_external_data=True,
        all_tensors_to_one_file=len(case.name) % 2 == 0,
        size_threshold=SMALLEST_EXTERNAL,
    )
    save_model(copy_model(load_model(before)), after)
    return Passage(before, after, first_difference(whole(before), whole(after)))


def whole(path: Path) -> onnx.ModelProto:
    """Read a model and its data; where the data lay is no longer seen."""
    proto = onnx.load(path)
    for tensor in proto.graph.initializer:
        tensor.ClearField("data_location")
    return proto


def run(model: bytes | Path, feed: dict[str, Any]) -> Outcome:
    onnxruntime.set_seed(1)
    try:
        session = open_session(model, threads=1, label="the model")
        if all(isinstance(value, np.ndarray) for value in feed.values()):
            outputs = list(session.run(feed).values())
        else:
            outputs = session.handle.run(None, feed, session.run_options)
    except Exception as error:  # noqa: BLE001 - whatever it is, both must give it
        text = str(error).split("\n", maxsplit=1)[0]
        return Outcome(None, text.replace(str(model), "the model"))
    return Outcome(tuple(comparable(value) for value in outputs))


def comparable(value: Any) -> Any:
    """Return an output so that equal means equal bits."""
    if isinstance(value, list):
        return [comparable(each) for each in value]
    if isinstance(value, np.ndarray):
        data = value.tolist() if value.dtype == object else value.tobytes()
        return str(value.dtype), value.shape, data
    return repr(value)


def serialised(proto: onnx.ModelProto) -> bytes:
    data: bytes = proto.SerializeToString(deterministic=True)
    return data


def first_difference(before: Any, after: Any, place: str = "") -> str:
    """Return the first field in which two messages differ, or nothing."""
    if serialised(before) == serialised(after):
        return ""
    for name in before.DESCRIPTOR.fields_by_name:
        one, other = getattr(before, name), getattr(after, name)
        where = f"{place}.{name}"
        if hasattr(one, "add"):
            if len(one) != len(other):
                return f"{where} has {len(one)} entries before, {len(other)} after"
            pairs = enumerate(zip(one, other, strict=True))
            found = (first_difference(a, b, f"{where}[{number}]") for number, (a, b) in pairs)
            difference = next((each for each in found if each), "")
        elif hasattr(one, "ListFields"):
            difference = first_difference(one, other, where)
        else:
            difference = (
                "" if repr(one) == repr(other) else f"{where}: {one!r:.60} / {other!r:.60}"
            )
        if difference:
            return difference
    return f"{place}: a field is present in only one of them"


def print_table(tallies: dict[tuple[str, str], Tally]) -> None:
    print(f"{'form':18}{'way':20}{'models':>8}{'identical':>11}{'refused':>9}{'failed':>8}")
    for (form, way), tally in tallies.items():
        refused = tally.refused.total()
        count = tally.identical + refused + len(tally.failed)
        print(f"{form:18}{way:20}{count:8}{tally.identical:11}{refused:9}{len(tally.failed):8}")
    reasons: Counter[str] = Counter()
    for tally in tallies.values():
        reasons += tally.refused
    print(f"\nIR versions above {NEWEST_IR} were lowered to it: ONNX Runtime reads no newer ones.")
    print("Refused by ONNX Runtime, before and after alike:")
    for reason, count in reasons.most_common():
        print(f"{count:6}  {reason}")
    for (form, way), tally in tallies.items():
        for each in tally.failed:
            print(f"FAILED ({form}; {way}) {each}")


def as_json(tallies: dict[tuple[str, str], Tally]) -> list[dict[str, Any]]:
    return [
        {
            "form": form,
            "way": way,
            "identical": tally.identical,
            "refused": dict(tally.refused),
            "failed": tally.failed,
        }
        for (form, way), tally in tallies.items()
    ]


if __name__ == "__main__":
    sys.exit(main())

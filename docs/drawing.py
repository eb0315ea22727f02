"""A part of a model's graph as a drawing (SVG): nodes as boxes, with the constants they read."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING

import onnx

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

WIDTH, LINE, GAP, MARGIN = 190, 15, 22, 8
"""Pixels: of a box, of a line of text, between boxes, around text."""

STYLE = "fill:none;stroke:currentColor"
TEXT = "fill:currentColor;font-size:11px;text-anchor:middle"


@dataclass
class Box:
    """One node that is drawn.

    Attributes:
        lines: What is written in it.
        row: How many boxes are below it on the longest way.
        column: Its place in the row.
        below: The boxes that read it.
    """

    lines: list[str]
    row: int = 0
    column: int = 0
    below: list[Box] = field(default_factory=list)

    @property
    def height(self) -> int:
        """In pixels."""
        return len(self.lines) * LINE + MARGIN


def drawn(path: Path, end: str, steps: int) -> str:
    """Return a drawing of the nodes that are so many steps from the output or the input.

    Args:
        path: The model.
        end: ``output`` or ``input``: where the steps are counted from.
        steps: Nodes on the way, decoding of weights not counted.
    """
    graph = onnx.load(path, load_external_data=False).graph
    constants = {tensor.name: described(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            constants[node.output[0]] = described(node.attribute[0].t)
    nodes = [node for node in graph.node if node.op_type != "Constant"]
    chosen = near(nodes, {port.name for port in getattr(graph, end)}, end, steps)
    for node in reversed(decoding(nodes, constants)):
        if node not in chosen and any(set(node.output) & set(each.input) for each in chosen):
            chosen.append(node)
    boxes = connected([node for node in nodes if node in chosen], constants)
    return picture(boxes, f"{path.name}, {steps} nodes from the {end}")


def described(tensor: onnx.TensorProto) -> str:
    """Return the shape and type of a constant."""
    dtype = onnx.TensorProto.DataType.Name(tensor.data_type).lower()
    return f"{'x'.join(map(str, tensor.dims)) or 'scalar'} {dtype}"


def near(
    nodes: list[onnx.NodeProto], names: set[str], end: str, steps: int
) -> list[onnx.NodeProto]:
    """Return the nodes that are at most so many steps from tensors of these names."""
    chosen: list[onnx.NodeProto] = []
    for _ in range(steps):
        if end == "output":
            found = [node for node in nodes if names & set(node.output)]
            names = {name for node in found for name in node.input}
        else:
            found = [node for node in nodes if names & set(node.input)]
            names = {name for node in found for name in node.output}
        chosen += [node for node in found if node not in chosen]
    return chosen


def decoding(nodes: list[onnx.NodeProto], constants: dict[str, str]) -> list[onnx.NodeProto]:
    """Return the nodes that compute of constants alone."""
    known, found = set(constants), []
    for node in nodes:
        if node.input and known.issuperset(filter(None, node.input)):
            known.update(node.output)
            found.append(node)
    return found


def connected(nodes: list[onnx.NodeProto], constants: dict[str, str]) -> list[Box]:
    """Return a box for each node, with its readers below it."""
    boxes = [
        Box([node.op_type, *(constants[name] for name in node.input if name in constants)])
        for node in nodes
    ]
    for node, box in zip(nodes, boxes, strict=True):
        for reader, other in zip(nodes, boxes, strict=True):
            if set(node.output) & set(reader.input):
                box.below.append(other)
    for box in reversed(boxes):
        box.row = 1 + max((each.row for each in box.below), default=-1)
    return boxes


def picture(boxes: list[Box], title: str) -> str:
    """Return boxes in rows, what reads below what is read."""
    rows: dict[int, list[Box]] = defaultdict(list)
    for box in sorted(boxes, key=lambda each: each.row):
        rows[box.row].append(box)
    tops, height = {}, MARGIN
    for row in sorted(rows, reverse=True):
        rows[row].sort(key=lambda box: sum(each.column for each in box.below))
        for column, box in enumerate(rows[row]):
            box.column = column
        tops[row] = height
        height += max(box.height for box in rows[row]) + GAP
    width = max(map(len, rows.values())) * (WIDTH + GAP)
    parts = [*boxes_of(rows, tops), *lines_of(boxes, tops)]
    return (
        f'<figure markdown="0"><svg viewBox="0 0 {width} {height}" width="{width}" '
        f'style="max-width:100%" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'
        f"<figcaption>{escape(title)}</figcaption></figure>"
    )


def boxes_of(rows: dict[int, list[Box]], tops: dict[int, int]) -> Iterable[str]:
    """Give the frame and the words of each box."""
    for box in (box for row in rows.values() for box in row):
        left, top = box.column * (WIDTH + GAP), tops[box.row]
        yield (
            f'<rect x="{left + 1}" y="{top}" width="{WIDTH}" height="{box.height}" rx="4" '
            f'style="{STYLE}"/>'
        )
        for place, line in enumerate(box.lines):
            weight = ";font-weight:bold" if place == 0 else ""
            yield (
                f'<text x="{left + WIDTH // 2}" y="{top + LINE * (place + 1) - 1}" '
                f'style="{TEXT}{weight}">{escape(line)}</text>'
            )


def lines_of(boxes: list[Box], tops: dict[int, int]) -> Iterable[str]:
    """Give a line from each box to those that read it."""
    for box in boxes:
        start = box.column * (WIDTH + GAP) + WIDTH // 2
        for other in box.below:
            end = other.column * (WIDTH + GAP) + WIDTH // 2
            yield (
                f'<path d="M{start} {tops[box.row] + box.height}L{end} {tops[other.row]}" '
                f'style="{STYLE}"/>'
            )

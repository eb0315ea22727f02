"""Sums of products: Gemm, MatMul and Einsum are one rule over named axes."""

from __future__ import annotations

from string import ascii_letters
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from onnxcomp_passes.prune_channels.operators import Operator

BATCH = [chr(code) for code in range(0x3B1, 0x3B1 + 24)]
"""Names of the axes that stand before those of a matrix, or for an ellipsis."""


def contract(op: Operator, operands: Sequence[Sequence[str]], output: Sequence[str]) -> None:
    """Sum products of inputs over the axes that the output does not have.

    An axis that is summed over loses an element without a change where it is zero in a constant
    operand. Where all operands are computed, nothing says that a product is zero: it stays.

    Args:
        op: The operator.
        operands: A name for each axis of each input; an axis of size 1 is broadcast.
        output: A name for each axis of the output.
    """
    given = dict(zip(output, op.output(), strict=True))
    computed = {
        name for place, names in enumerate(operands) if not op.is_fixed(place) for name in names
    }
    consuming = {
        name for place, names in enumerate(operands) if op.is_fixed(place) for name in names
    }
    known = dict(given)
    for place, names in enumerate(operands):
        for axis, (name, ids) in enumerate(zip(names, op.input(place), strict=True)):
            same = known.setdefault(name, ids)
            if len(same) == 1 and name not in given and len(ids) > 1:
                known[name] = same = ids
            if len(ids) == len(same):
                op.join(ids, same)
            if name not in given and not (name in computed and name in consuming):
                op.freeze([ids], op.mixes)
            if list(names).count(name) > 1:
                op.freeze([ids], f"{op.name} takes its diagonal")
            is_shared = name in computed if op.is_fixed(place) else name in consuming
            if name not in given:
                op.use(place, axis, "consumes")
            else:
                op.use(place, axis, "follows" if is_shared else "produces")


def matmul(op: Operator) -> None:
    """(..., rows, inner) times (..., inner, columns); a vector has the inner axis only."""
    ranks = [len(op.input(place)) for place in (0, 1)]
    left, right = ["rows", "inner"], ["inner", "columns"]
    output = [*left[2 - min(ranks[0], 2) : 1], *right[1 : min(ranks[1], 2)]]
    operands = [
        [*_batch(ranks[0] - 2), *left[2 - min(ranks[0], 2) :]],
        [*_batch(ranks[1] - 2), *right[: min(ranks[1], 2)]],
    ]
    contract(op, operands, [*_batch(len(op.output()) - len(output)), *output])


def gemm(op: Operator) -> None:
    """Rows times columns, either turned, plus what is broadcast to the output."""
    left, right = ["rows", "inner"], ["inner", "columns"]
    operands = [
        left[::-1] if op.attribute("transA", 0) else left,
        right[::-1] if op.attribute("transB", 0) else right,
    ]
    contract(op, operands, ["rows", "columns"])
    addend, output = op.input(2), op.output()
    for axis, ids in enumerate(addend):
        given = output[len(output) - len(addend) + axis]
        if len(ids) == len(given):
            op.join(ids, given)
            op.use(2, axis, "follows")


def einsum(op: Operator) -> None:
    """Any sum of products, as its equation says."""
    equation = str(op.attribute("equation", "")).replace(" ", "")
    terms, arrow, output = equation.partition("->")
    operands = terms.split(",")
    if not arrow:
        letters = sorted({each for each in terms if each in ascii_letters})
        once = [each for each in letters if terms.count(each) == 1]
        output = "..." * ("..." in terms) + "".join(once)
    ranks = [len(op.input(place)) for place in range(len(operands))]
    named = [_named(term, rank) for term, rank in zip(operands, ranks, strict=True)]
    contract(op, named, _named(output, len(op.output())))


def _named(term: str, rank: int) -> list[str]:
    before, dots, after = term.partition("...")
    return [*before, *_batch(rank - len(before) - len(after) if dots else 0), *after]


def _batch(count: int) -> list[str]:
    """Name leading axes, which are aligned at their last."""
    return BATCH[:count][::-1] if count > 0 else []


RULES: dict[str, Callable[[Operator], None]] = {
    "Einsum": einsum,
    "Gemm": gemm,
    "MatMul": matmul,
}

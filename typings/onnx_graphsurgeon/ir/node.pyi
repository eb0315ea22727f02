from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from onnx_graphsurgeon.ir.tensor import Tensor

class Node:
    @dataclass
    class AttributeRef:
        name: str
        type: Any

    op: str
    name: str
    attrs: dict[str, Any]
    domain: str | None
    def __init__(
        self,
        op: str,
        name: str | None = None,
        attrs: dict[str, Any] | None = None,
        inputs: Sequence[Tensor] | None = None,
        outputs: Sequence[Tensor] | None = None,
        domain: str | None = None,
    ) -> None: ...
    # Lists that tell the tensors in them; to assign is to fill them anew.
    @property
    def inputs(self) -> list[Tensor]: ...
    @inputs.setter
    def inputs(self, tensors: Iterable[Tensor]) -> None: ...
    @property
    def outputs(self) -> list[Tensor]: ...
    @outputs.setter
    def outputs(self, tensors: Iterable[Tensor]) -> None: ...

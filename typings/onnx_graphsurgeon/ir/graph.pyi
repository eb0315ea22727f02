from collections.abc import Iterable, Sequence

import onnx
from onnx_graphsurgeon.ir.node import Node
from onnx_graphsurgeon.ir.tensor import Tensor

# The real class answers any name with a registered function; here an unknown name is an error.
class Graph:
    nodes: list[Node]
    name: str
    doc_string: str
    opset: int
    import_domains: Sequence[onnx.OperatorSetIdProto] | None
    ir_version: int | None
    def __init__(
        self,
        nodes: Sequence[Node] | None = None,
        inputs: Sequence[Tensor] | None = None,
        outputs: Sequence[Tensor] | None = None,
        name: str | None = None,
        doc_string: str | None = None,
        opset: int | None = None,
        import_domains: Sequence[onnx.OperatorSetIdProto] | None = None,
        *,
        ir_version: int | None = None,
    ) -> None: ...
    @property
    def inputs(self) -> list[Tensor]: ...
    @inputs.setter
    def inputs(self, tensors: Iterable[Tensor]) -> None: ...
    @property
    def outputs(self) -> list[Tensor]: ...
    @outputs.setter
    def outputs(self, tensors: Iterable[Tensor]) -> None: ...

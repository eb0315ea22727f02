"""Models as ONNX Runtime opens them: bytes, or files where they are too large."""

from __future__ import annotations

import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import onnx

from onnxcomp.graph import model_bytes, save_model

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from onnxcomp.graph import Model


class Workbench:
    """A temporary folder for models with external data; a context manager."""

    def __enter__(self) -> Self:
        """Make the folder."""
        self._folder = TemporaryDirectory(prefix="onnxcomp-")
        self._count = 0
        self._last: tuple[Model, bytes | Path] | None = None
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Remove the folder."""
        self.forget()
        self._folder.cleanup()

    def runnable(self, model: Model) -> bytes | Path:
        """Return a model so that a session can be opened from it; the last is not written again.

        Args:
            model: It is not changed as long as it is the last.
        """
        if self._last is None or self._last[0] is not model:
            self.forget()
            self._last = (model, self._written(model))
        return self._last[1]

    def forget(self) -> None:
        """Let go of the last model, which may take as much memory as its file."""
        self._last = None

    def _written(self, model: Model) -> bytes | Path:
        if not model.is_external:
            return model_bytes(model)
        self._count += 1
        folder = Path(self._folder.name, str(self._count))
        folder.mkdir()
        return save_model(model, folder / "model.onnx")[0]


def complaint(model: bytes | Path) -> str | None:
    """Return what ONNX's checker has against a model, in one line; None for a valid model."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            onnx.checker.check_model(model if isinstance(model, bytes) else str(model))
    except (onnx.checker.ValidationError, ValueError) as error:
        return " ".join(str(error).split())[:200]
    return None

"""What passes measured of a model, in a folder, for other settings of them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onnxcomp.graph.saving import replacing
from onnxcomp.pipeline import recipe

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from onnxcomp.pipeline import Pass


@dataclass(frozen=True)
class Memory:
    """Plain data by name.

    Args:
        folder: Where it is kept, for one model, its samples and one seed.
        passes: What was done to the model before.
    """

    folder: Path
    passes: Sequence[Pass]

    def recall(self, name: str, measure: Callable[[], Any]) -> Any:
        """Return what was measured under a name; measure it if that was never done."""
        whole = json.dumps([recipe(self.passes), name])
        path = self.folder / f"{hashlib.sha256(whole.encode()).hexdigest()[:32]}.measured.json"
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            found = json.dumps(measure())
        with replacing(path) as file:
            file.write(found.encode())
        return json.loads(found)

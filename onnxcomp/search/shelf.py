"""What a search has finished, on disk: it is never done twice, whatever happens to the search."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import TYPE_CHECKING

import numpy as np
from pydantic import TypeAdapter, ValidationError

from onnxcomp.api import compare
from onnxcomp.errors import ModelError
from onnxcomp.graph.saving import replacing
from onnxcomp.pipeline import recipe
from onnxcomp.report import Step, Trial
from onnxcomp.runtime.evaluation import Score
from onnxcomp.validation import Validation

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Self

    from onnxcomp.api import Compressed, Settings
    from onnxcomp.pipeline import Pass
    from onnxcomp.report import Report

MODEL, STEPS, CHECKS, SCORE = "model.onnx", "steps.json", "checks.json", "score.json"

_STEPS, _CHECKS = TypeAdapter(tuple[Step, ...]), TypeAdapter(tuple[Validation, ...])


class Shelf:
    """A folder of results by pipeline, those of a pipeline's beginnings included.

    Whatever is there is whole: files and folders are renamed to their names when they are.

    Args:
        folder: Where it is.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def at(cls, folder: Path) -> Self:
        """Return the shelf at a folder, which is made if it is not there.

        Raises:
            ModelError: It cannot be.
        """
        make_folder(folder)
        return cls(folder)

    def model(self, passes: Sequence[Pass]) -> Path | None:
        """Return the result of a pipeline, if it is here."""
        path = self._place(passes) / MODEL
        return path if path.is_file() else None

    def beginning(self, passes: Sequence[Pass]) -> int:
        """Return how many passes of a pipeline, from the first, there is a result of."""
        for count in range(len(passes), 0, -1):
            if self.model(passes[:count]) is not None:
                return count
        return 0

    def forget(self, passes: Sequence[Pass]) -> None:
        """Remove the results of a pipeline and of all its beginnings."""
        for count in range(1, len(passes) + 1):
            rmtree(self._place(passes[:count]), ignore_errors=True)

    def memory(self, passes: Sequence[Pass]) -> Path:
        """Return the folder for what is measured of the result of a pipeline, which is here."""
        return self._place(passes) if passes else self.folder

    def keep(
        self, passes: Sequence[Pass], result: Compressed, making: Path
    ) -> tuple[Path, Report]:
        """Put the result of a pipeline here; return where its model is, and its report.

        Args:
            passes: The pipeline.
            result: What came of it.
            making: A folder on this one's file system, for what is not whole yet.
        """
        steps = (*self.steps(passes[:-1]), *result.report.steps)
        made = Path(mkdtemp(dir=making))
        report = result.save(made / MODEL)
        (made / STEPS).write_bytes(_STEPS.dump_json(steps, by_alias=True))
        path = move_to(self._place(passes), made) / MODEL
        self._keep_checks(passes, report.validation)
        return path, report

    def _keep_checks(self, passes: Sequence[Pass], checks: Sequence[Validation]) -> None:
        """Keep how close the result of a pipeline is, where it was compared; it is here."""
        if checks and passes:
            with replacing(self._place(passes) / CHECKS) as file:
                # As JSON has them, infinite numbers would all be null.
                file.write(json.dumps([each.model_dump() for each in checks]).encode())

    def compared(
        self, passes: Sequence[Pass], path: Path, original: Path, *, data: Any, settings: Settings
    ) -> Report:
        """Compare the result of a pipeline with the original, but for what was compared before.

        Args:
            passes: The pipeline.
            path: Its result.
            original: The model that it was made from.
            data: Samples; None where there are none.
            settings: How results are checked and timed.
        """
        known = self._checks(passes)
        update = {"validation": not known}
        report = compare(original, path, data=data, settings=settings.model_copy(update=update))
        if not known:
            self._keep_checks(passes, report.validation)
        return report.model_copy(update={"validation": known or report.validation})

    def _checks(self, passes: Sequence[Pass]) -> tuple[Validation, ...]:
        """Return how close the result of a pipeline is; nothing where it was not compared."""
        try:
            text = (self._place(passes) / CHECKS).read_text()
        except OSError:
            return ()
        return _CHECKS.validate_python(json.loads(text))

    def steps(self, passes: Sequence[Pass]) -> tuple[Step, ...]:
        """Return the records of the passes of a pipeline whose result is here."""
        if not passes:
            return ()
        return _STEPS.validate_json((self._place(passes) / STEPS).read_bytes())

    def trial(self, passes: Sequence[Pass]) -> Trial | None:
        """Return what trying a pipeline came to, if it was tried and what it gave is here."""
        try:
            found = Trial.model_validate_json(self._record(passes).read_bytes())
        except (OSError, ValidationError):
            return None
        has_result = found.status != "failed" and bool(passes)
        return None if has_result and self.model(passes) is None else found

    def note(self, passes: Sequence[Pass], trial: Trial) -> None:
        """Write down what trying a pipeline came to."""
        with replacing(self._record(passes)) as file:
            file.write(trial.to_json().encode())

    def score(self) -> Score | None:
        """Return what the evaluator made of the original, if that was remembered."""
        try:
            value, items = json.loads((self.folder / SCORE).read_text())
        except (OSError, ValueError):
            return None
        return Score(value, None if items is None else np.array(items))

    def remember(self, score: Score) -> None:
        """Remember what the evaluator made of the original."""
        items = None if score.items is None else score.items.tolist()
        with replacing(self.folder / SCORE) as file:
            file.write(json.dumps([score.value, items]).encode())

    def _place(self, passes: Sequence[Pass]) -> Path:
        return self.folder / _key(passes)

    def _record(self, passes: Sequence[Pass]) -> Path:
        return self.folder / f"{_key(passes)}.json"


def make_folder(folder: Path) -> None:
    """Make a folder, and those that it is in, if it is not there.

    Raises:
        ModelError: It cannot be.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = (error.strerror or "cannot be made").lower()
        raise ModelError(f"cannot make folder {str(folder)!r}: {reason}") from error


def move_to(place: Path, made: Path) -> Path:
    """Rename a folder that is whole to where it belongs, and return that."""
    try:
        made.rename(place)
    except OSError:
        # Another process was faster; what it made is the same.
        rmtree(made)
    return place


def user_cache() -> Path:
    """Return the folder in which a user's programs keep what they can make again."""
    if os.name == "nt":
        home = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    else:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home, "onnxcomp")


def digest(*parts: bytes | str | Path) -> str:
    """Return a name for what texts, files and folders hold."""
    found = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            files = sorted(part.rglob("*")) if part.is_dir() else [part]
            for file in files:
                if file.is_file():
                    found.update(file.name.encode())
                    with file.open("rb") as opened:
                        found.update(hashlib.file_digest(opened, "sha256").digest())
        else:
            found.update(part.encode() if isinstance(part, str) else part)
        found.update(b"\0")
    return found.hexdigest()[:32]


def _key(passes: Sequence[Pass]) -> str:
    return digest(json.dumps(recipe(passes), sort_keys=True))

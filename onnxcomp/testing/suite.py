"""Every check of a pass, one by one or all at once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from onnxcomp.testing.model_checks import check_result, check_selection
from onnxcomp.testing.models import small_models
from onnxcomp.testing.option_checks import (
    check_bounds_are_kept,
    check_command,
    check_declaration,
    check_options_are_described,
    check_options_are_frozen,
    check_recipe_round_trip,
    check_schema,
    check_strength,
    check_unknown_options_are_refused,
)
from onnxcomp.testing.process_checks import check_threads

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from onnxcomp.pipeline import Pass
    from onnxcomp.testing.small_model import SmallModel

CHECKS = (
    check_declaration,
    check_options_are_described,
    check_bounds_are_kept,
    check_unknown_options_are_refused,
    check_options_are_frozen,
    check_recipe_round_trip,
    check_schema,
    check_strength,
    check_command,
    check_threads,
)
"""Called with a pass and an empty folder."""

MODEL_CHECKS = (check_result, check_selection)
"""Called with a pass, a model and an empty folder."""


@dataclass(frozen=True)
class Check:
    """One check of one pass; call it with an empty folder.

    Args:
        name: What is checked, of which pass, on which model.
        run: Raises an `AssertionError` where the pass does not do what it must.
    """

    name: str
    run: Callable[[Path], None]

    def __str__(self) -> str:
        return self.name

    def __call__(self, folder: Path) -> None:
        """Run the check."""
        self.run(folder)


def checks(subject: Pass, models: Sequence[SmallModel] = ()) -> list[Check]:
    """List every check of a pass, for a test to be parametrised with.

    ::

        @pytest.mark.parametrize("check", checks(MyPass()), ids=str)
        def test_my_pass(check, tmp_path):
            check(tmp_path)

    Args:
        subject: The pass, set up as it is to be checked. It must be installed: its entry point is
            checked too.
        models: What it is tried on; all of `small_models` unless given.
    """
    name = subject.name
    listed = [Check(f"{name}-{_title(check)}", partial(check, subject)) for check in CHECKS]
    for model in models or small_models():
        listed += [
            Check(f"{name}-{model.name}-{_title(check)}", partial(check, subject, model))
            for check in MODEL_CHECKS
        ]
    return listed


def check_pass(subject: Pass, models: Sequence[SmallModel] = ()) -> None:
    """Run every check of a pass, without pytest.

    Raises:
        AssertionError: One fails; the message begins with its name.
    """
    for check in checks(subject, models):
        with TemporaryDirectory(prefix="onnxcomp-") as folder:
            try:
                check(Path(folder))
            except AssertionError as error:
                raise AssertionError(f"{check}: {error}") from error


def _title(check: Callable[..., None]) -> str:
    return check.__name__.removeprefix("check_")

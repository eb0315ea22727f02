"""Where results go: refused before hours of work, not after."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxcomp.errors import ModelError, OptionError
from onnxcomp.graph import check_regular, is_same_file, load_model
from onnxcomp.report import check_report

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

TARGETS = {"output": "-o", "report": "--report", "plot": "--plot"}
"""Parameters of commands that name a file to write, and what their user calls them."""

MODELS = {
    "model": "the model",
    "original": "the original",
    "other": "the model that is compared",
    "against": "the original",
    "read": "a model that a pass reads",
}
"""Parameters that name a model to read, and what it is."""

INPUTS = {
    "data": "samples",
    "statistics": "statistics",
    "merge": "statistics",
    "recipe": "the recipe",
    "target": "the recipe of --target",
    "labels": "the labels",
    "evaluate": "the evaluator",
}
"""Parameters that name other files to read, and what they are."""


def force_option() -> click.Option:
    """Return ``--force``, common to all commands that write a model."""
    return click.Option(["--force"], is_flag=True, help="Let -o replace the model that is read.")


def check_targets(given: Mapping[str, Any]) -> None:
    """Refuse targets that cannot be written, or that would overwrite what this very run reads.

    Args:
        given: All parameters of the command. ``force`` among them lets the output replace the
            model.

    Raises:
        ModelError: A file cannot be written there.
        OptionError: It is an input of the run, or two targets are one.
    """
    targets = {name: Path(given[name]) for name in TARGETS if given.get(name) is not None}
    for name, path in targets.items():
        if name == "report":
            check_report(path)
        check_writable(path)
        _check_overwriting(name, path, given)
    output, report = targets.get("output"), targets.get("report")
    if output is not None and report is not None and is_same_file(output, report):
        raise OptionError(f"--report {str(report)!r} is where -o goes; give another name")


def check_writable(path: Path) -> None:
    """Refuse a target whose folder is not there or not writable, and one that is no file.

    Raises:
        ModelError: A file cannot be written there.
    """
    folder = path.parent
    if not folder.is_dir():
        raise ModelError(f"cannot write {str(path)!r}: no folder {str(folder)!r}; make it first")
    check_regular(path)
    if not os.access(folder, os.W_OK):
        raise ModelError(f"cannot write {str(path)!r}: folder {str(folder)!r} is not writable")


def _check_overwriting(name: str, path: Path, given: Mapping[str, Any]) -> None:
    if not path.exists():
        return
    what = next((what for what, read in _read(given) if _is_at(path, read)), None)
    if what is None:
        return
    flag = f"{TARGETS[name]} {str(path)!r}"
    if name == "output" and what == MODELS["model"] and "force" in given:
        if not given["force"]:
            raise OptionError(f"{flag} is the model itself; give another name, or --force")
        return
    raise OptionError(f"{flag} would overwrite {what}, which this run reads; give another name")


def _read(given: Mapping[str, Any]) -> Iterator[tuple[str, Path]]:
    """Yield what a run reads: what it is, and the file or folder."""
    for name, what in MODELS.items():
        for model in _values(given, name):
            yield what, Path(model)
            for path in load_model(Path(model)).data_paths:
                yield f"a data file of {what}", path
    for name, what in INPUTS.items():
        for value in _values(given, name):
            # An evaluator is a file and a function.
            path = Path(value.rpartition(":")[0] if name == "evaluate" else value)
            # A preset, or a module, may be called like a folder; only samples are read from one.
            if name == "data" or not path.is_dir():
                yield what, path


def _values(given: Mapping[str, Any], name: str) -> list[str]:
    """Return what a parameter names: nothing, one or several."""
    value = given.get(name)
    values = value if isinstance(value, tuple) else (value,)
    return [str(each) for each in values if each is not None]


def _is_at(path: Path, read: Path) -> bool:
    """Tell whether a file that is there is what is read, or in the folder that is."""
    if read.is_dir():
        return path.resolve().is_relative_to(read.resolve())
    return is_same_file(path, read)

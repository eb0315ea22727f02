"""Which passes there are: the built-in ones and those of other distributions, found alike."""

from __future__ import annotations

from functools import lru_cache
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from onnxcomp.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from importlib.metadata import EntryPoint
    from pathlib import Path

    from onnxcomp.pipeline.passes import Pass

ENTRY_POINTS = "onnxcomp.passes"
"""The entry-point group; each entry names a tuple of `Pass` classes."""

PRESETS = "onnxcomp.presets"
"""Another; each entry names the path of a folder of recipes."""


@lru_cache(maxsize=1)
def available_passes() -> Mapping[str, type[Pass]]:
    """Return every installed pass by name, in the order of their stages.

    Raises:
        OptionError: Two distributions have a pass of the same name, or one cannot be loaded.
    """
    found: dict[str, type[Pass]] = {}
    for entry in sorted(entry_points(group=ENTRY_POINTS), key=lambda each: each.value):
        for cls in _load(entry):
            other = found.setdefault(cls.name, cls)
            if other is not cls:
                raise OptionError(
                    f"{cls.__module__} and {other.__module__} both have a pass {cls.name!r}; "
                    "uninstall one of them"
                )
    return MappingProxyType(dict(sorted(found.items(), key=lambda item: (item[1].stage, item[0]))))


@lru_cache(maxsize=1)
def available_presets() -> Mapping[str, Path]:
    """Return the recipe files that a search can choose from, by name.

    Raises:
        OptionError: A distribution that has some cannot be loaded.
    """
    folders = [_load(entry) for entry in entry_points(group=PRESETS)]
    files = sorted(file for folder in folders for file in folder.glob("*.toml"))
    return MappingProxyType({file.stem: file for file in files})


def _load(entry: EntryPoint) -> Any:
    try:
        return entry.load()
    except Exception as error:
        owner = entry.dist.name if entry.dist is not None else entry.value
        reason = " ".join(str(error).split())
        raise OptionError(
            f"the passes of {owner} cannot be loaded ({type(error).__name__}: {reason}); "
            "mend or uninstall it"
        ) from error

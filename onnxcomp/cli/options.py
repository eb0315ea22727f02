"""Options of commands: those of fields of `Options`, and those that several commands have."""

from __future__ import annotations

from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

import click
from pydantic_core import PydanticUndefined

if TYPE_CHECKING:
    from collections.abc import Collection

    from pydantic.fields import FieldInfo

    from onnxcomp.options import Options


def model_argument(name: str) -> click.Argument:
    """Return an argument that is the path of a model."""
    return click.Argument([name], type=click.Path(path_type=Path), metavar=name.upper())


def output_option(text: str) -> click.Option:
    """Return ``--output``, which all commands that write a file need.

    Args:
        text: Its help.
    """
    return click.Option(
        ["-o", "--output"],
        type=click.Path(path_type=Path, dir_okay=False),
        required=True,
        help=text,
    )


def data_option() -> click.Option:
    """Return ``--data``, common to all commands that run a model."""
    return click.Option(
        ["--data"],
        type=click.Path(path_type=Path),
        help="Inputs: one .npz (axis 0 counts the samples), a .npy for a single input, a folder "
        "of .npz (each a complete feed), or ONNX test_data_set folders. Passes calibrate on them; "
        "made up, for comparing only, if not given.",
    )


def statistics_option() -> click.Option:
    """Return ``--statistics``, common to all commands that write a model."""
    return click.Option(
        ["--statistics"],
        type=click.Path(path_type=Path),
        help="Calibrate on a file that 'onnxcomp statistics' made of the model; --data is then "
        "for comparing only.",
    )


def json_option() -> click.Option:
    """Return ``--json``, common to all commands that measure."""
    return click.Option(["--json", "as_json"], is_flag=True, help="Print JSON on stdout.")


def report_option() -> click.Option:
    """Return ``--report``, likewise."""
    return click.Option(
        ["--report"],
        type=click.Path(path_type=Path, dir_okay=False),
        help="Write the report to a file too: an .html (one page that loads nothing), an .md for "
        "a pull request, or a .json.",
    )


def options_of(cls: type[Options], only: Collection[str] | None = None) -> list[click.Parameter]:
    """Return an option for each field of ``cls``, or for those named in ``only``."""
    return [
        _option(name, field)
        for name, field in cls.model_fields.items()
        if only is None or name in only
    ]


def taken(cls: type[Options], given: dict[str, Any]) -> dict[str, Any]:
    """Take the values of the fields of ``cls`` out of ``given``."""
    return {name: given.pop(name) for name in cls.model_fields if name in given}


def _option(name: str, field: FieldInfo) -> click.Option:
    flag = "--" + (field.alias or name).replace("_", "-")
    annotation = _without_none(field.annotation)
    is_many = get_origin(annotation) is tuple
    default = None if field.default is PydanticUndefined else field.default
    if annotation is bool:
        return click.Option(
            [f"{flag}/--no-{flag[2:]}", name],
            default=default,
            show_default=True,
            help=field.description,
        )
    return click.Option(
        [flag, name],
        type=_type(get_args(annotation)[0] if is_many else annotation, field),
        multiple=is_many,
        default=default,
        show_default=default not in (None, ()),
        help=field.description,
    )


def _without_none(annotation: Any) -> Any:
    """Return the first alternative that can be spelled on a command line."""
    if get_origin(annotation) not in (Union, UnionType):
        return annotation
    kinds = [each for each in get_args(annotation) if each is not NoneType]
    return next((each for each in kinds if each in (int, float, str)), kinds[0])


def _type(annotation: Any, field: FieldInfo) -> click.ParamType[Any]:
    if get_origin(annotation) is Literal:
        values = get_args(annotation)
        if all(isinstance(each, int) for each in values):
            return _NumberChoice(values)
        return click.Choice(values)
    if annotation in (int, float):
        low = _bound(field, "ge")
        high = _bound(field, "le")
        if low is None and high is None:
            return click.INT if annotation is int else click.FLOAT
        return click.IntRange(low, high) if annotation is int else click.FloatRange(low, high)
    return click.STRING


def _bound(field: FieldInfo, which: str) -> Any:
    return next((getattr(each, which) for each in field.metadata if hasattr(each, which)), None)


class _NumberChoice(click.Choice[int]):
    """One of a few whole numbers."""

    def __init__(self, values: tuple[int, ...]) -> None:
        super().__init__(values)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number that a text names."""
        text = str(value)
        number = int(text) if text.isdecimal() else value
        return super().convert(number, param, ctx)

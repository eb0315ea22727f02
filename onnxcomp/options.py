"""Options as typed fields: commands, recipes, checks and schemas come from them."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from onnxcomp.errors import OptionError

if TYPE_CHECKING:
    from pydantic import ModelWrapValidatorHandler


class Options(BaseModel):
    """A frozen set of options; an unknown or wrong one is an `OptionError` of one line.

    ``name`` says in messages whose options they are. Every field has a default, and a type out of
    bool, int, float, str, Literal, tuples of these, and None as a default only. What two fields
    must not be together is refused in ``model_post_init``, by an `OptionError`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, defer_build=True)

    name: ClassVar[str]

    @model_validator(mode="wrap")
    @classmethod
    def _in_one_line(cls, values: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(values)
        except ValidationError as error:
            raise OptionError(_explain(cls, error)) from error


def did_you_mean(given: str, known: list[str]) -> str:
    """Return the end of a message about a name that is not known."""
    close = get_close_matches(given, known, 1)
    return f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"


def _explain(cls: type[Options], error: ValidationError) -> str:
    """Put pydantic's first complaint into one line: the thing, the value, the remedy."""
    first = error.errors(include_url=False)[0]
    option = str(first["loc"][0]) if first["loc"] else ""
    if first["type"] == "extra_forbidden":
        return f"{cls.name}: unknown option {option!r}; " + did_you_mean(
            option, sorted(cls.model_fields)
        )
    message = first["msg"].removeprefix("Value error, ")
    if not option:
        return f"{cls.name}: {message}"
    message = message[0].lower() + message[1:]
    return f"{cls.name}: {option} = {first['input']!r}: {message}"

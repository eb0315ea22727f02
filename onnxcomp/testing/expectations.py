"""How a check fails: one sentence on what a pass did and should not have done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxcomp.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Callable


def expect(condition: object, message: str) -> None:
    """Fail with a message unless a condition holds.

    Raises:
        AssertionError: It does not.
    """
    if not condition:
        raise AssertionError(message)


def refusal(configure: Callable[[], object]) -> str:
    """Return the message with which wrong options are refused.

    Raises:
        AssertionError: They are accepted, or the message is not one line.
    """
    try:
        accepted = configure()
    except OptionError as error:
        message = str(error)
        expect("\n" not in message, f"the message has several lines: {message!r}")
        return message
    raise AssertionError(f"{accepted!r} was accepted")

"""Copying protobuf messages in part."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from google.protobuf.message import Message

if TYPE_CHECKING:
    from collections.abc import Collection

MessageKind = TypeVar("MessageKind", bound=Message)


def copy_without(message: MessageKind, skipped: Collection[str]) -> MessageKind:
    """Copy a message except for the named fields, which are not even read."""
    copied = type(message)()
    for field, value in message.ListFields():
        if field.name in skipped:
            continue
        if isinstance(value, Message):
            getattr(copied, field.name).CopyFrom(value)
        elif hasattr(value, "MergeFrom"):
            getattr(copied, field.name).MergeFrom(value)
        else:
            setattr(copied, field.name, value)
    return copied

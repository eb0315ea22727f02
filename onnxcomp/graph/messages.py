"""Copying protobuf messages in part."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, TypeVar

import onnx
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

if TYPE_CHECKING:
    from collections.abc import Collection

    from google.protobuf.descriptor import FieldDescriptor

MessageKind = TypeVar("MessageKind", bound=Message)

FIXED64, DELIMITED, GROUP, GROUP_END, FIXED32 = 1, 2, 3, 4, 5
"""Wire types of protobuf; 0 is a varint."""

TENSOR_TEXT = ("name", "doc_string", "external_data", "metadata_props")
"""Fields of a tensor in which text is."""


def copy_without(message: MessageKind, skipped: Collection[str]) -> MessageKind:
    """Copy a message except for the named fields, which are not even read.

    Fields that this version of ONNX does not know are copied too.
    """
    copied: MessageKind = type(message)()
    for field in message.DESCRIPTOR.fields:
        name = field.name
        if name in skipped:
            continue
        value = getattr(message, name)
        if hasattr(value, "MergeFrom") and not isinstance(value, Message):
            getattr(copied, name).MergeFrom(value)
        elif message.HasField(name) and isinstance(value, Message):
            getattr(copied, name).CopyFrom(value)
        elif message.HasField(name):
            setattr(copied, name, value)
    unknown = UnknownFieldSet(message)
    if len(unknown):
        copied.MergeFromString(_encoded(unknown))
    return copied


def check_text(message: Message) -> None:
    """Check that all text in a message is UTF-8, which protobuf leaves to its readers.

    Raises:
        ValueError: Some is not.
    """
    waiting = [message]
    while waiting:
        current = waiting.pop()
        for field, value in _readable(current):
            if isinstance(value, str | int | float):
                continue
            values = [value] if isinstance(value, bytes | Message) else value
            if field.message_type is not None:
                waiting.extend(values)
            elif field.type == field.TYPE_STRING:
                # Protobuf gives bytes for text that it cannot decode.
                wrong = [each for each in values if isinstance(each, bytes)]
                if wrong:
                    raise ValueError(f"{field.name} {wrong[0]!r} is not UTF-8")


def _readable(message: Message) -> list[tuple[FieldDescriptor, Any]]:
    """Return the fields that are set; of a tensor without its data, which would be copied."""
    if not isinstance(message, onnx.TensorProto):
        return list(message.ListFields())
    fields = message.DESCRIPTOR.fields_by_name
    return [(fields[name], getattr(message, name)) for name in TENSOR_TEXT]


def _encoded(fields: UnknownFieldSet) -> bytes:
    """Return fields in protobuf's wire format."""
    return b"".join(
        _varint(field.field_number << 3 | field.wire_type) + _payload(field) for field in fields
    )


def _payload(field: Any) -> bytes:
    data = field.data
    if field.wire_type == FIXED64:
        return struct.pack("<Q", data)
    if field.wire_type == FIXED32:
        return struct.pack("<I", data)
    if field.wire_type == DELIMITED:
        return _varint(len(data)) + bytes(data)
    if field.wire_type == GROUP:
        return _encoded(data) + _varint(field.field_number << 3 | GROUP_END)
    return _varint(data)


def _varint(number: int) -> bytes:
    digits = bytearray()
    while number > 0x7F:  # noqa: PLR2004 - seven bits a byte
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*digits, number])

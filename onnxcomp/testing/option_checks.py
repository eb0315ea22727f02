"""What holds for the options of every pass, whatever the model."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import click

from onnxcomp.cli.writing import pass_command
from onnxcomp.errors import OptionError
from onnxcomp.pipeline import (
    Pass,
    Stage,
    available_passes,
    parse_recipe,
    read_recipe,
    recipe,
    recipe_schema,
)
from onnxcomp.testing.expectations import expect, refusal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STEPS_OUTSIDE = {"ge": -1, "gt": 0, "le": 1, "lt": 0}
"""What added to a bound of each kind gives a value beyond it."""


def check_declaration(subject: Pass, folder: Path) -> None:
    """Needs no arguments and has a name, a stage, a docstring; it is installed by that name."""
    del folder
    cls = type(subject)
    expect(cls() == cls(), "two passes without arguments differ")
    expect(re.fullmatch(r"[a-z][a-z0-9-]*", cls.name), f"{cls.name!r} is no name of a command")
    expect(isinstance(cls.stage, Stage), f"stage {cls.stage!r} is no Stage")
    expect(isinstance(subject.saves_bytes, bool), "saves_bytes is not a bool")
    summary = (cls.__dict__.get("__doc__") or "").strip().partition("\n")[0]
    expect(summary.endswith("."), "the docstring has no first line that is a sentence")
    found = available_passes().get(cls.name)
    expect(found is cls, f"the entry point {cls.name!r} gives {found!r}")


def check_options_are_described(subject: Pass, folder: Path) -> None:
    """Every option has a default, which is accepted, and a description that is a sentence."""
    del folder
    for name, field in type(subject).model_fields.items():
        expect(not field.is_required(), f"option {name!r} has no default")
        expect((field.description or "").endswith("."), f"option {name!r} is not described")
    type(subject).model_validate(type(subject)().model_dump())


def check_bounds_are_kept(subject: Pass, folder: Path) -> None:
    """A number just beyond a bound is refused in one line that names the option."""
    del folder
    for option, outside in _outside(type(subject)):
        message = refusal(lambda o=option, v=outside: type(subject).model_validate({o: v}))  # type: ignore[misc]
        named = option in message and str(outside) in message
        expect(named, f"{option} = {outside} is refused without saying so: {message!r}")


def check_unknown_options_are_refused(subject: Pass, folder: Path) -> None:
    """An option that there is not is refused, and the one that was meant is named."""
    del folder
    for option in type(subject).model_fields:
        wrong = option + "x"
        message = refusal(lambda w=wrong: type(subject).model_validate({w: 1}))  # type: ignore[misc]
        expect(f"did you mean {option!r}?" in message, f"{wrong!r} is answered by {message!r}")


def check_options_are_frozen(subject: Pass, folder: Path) -> None:
    """No option can be set after the pass is made."""
    del folder
    for option in type(subject).model_fields:
        try:
            setattr(subject, option, getattr(subject, option))
        except (OptionError, ValueError, AttributeError):
            continue
        expect(condition=False, message=f"option {option!r} can be set")


def check_recipe_round_trip(subject: Pass, folder: Path) -> None:
    """What is written to a recipe, as JSON or TOML, is read back as the same pass."""
    written = recipe((subject,))
    expect(parse_recipe(json.loads(json.dumps(written))) == (subject,), "JSON gives another pass")
    as_json = folder / "recipe.json"
    as_json.write_text(json.dumps(written), encoding="utf-8")
    expect(read_recipe(as_json) == (subject,), "a .json file gives another pass")
    as_toml = folder / "recipe.toml"
    # What passes have for options is written alike in JSON and in TOML.
    lines = (f"{key} = {json.dumps(value)}" for key, value in written["passes"][0].items())
    as_toml.write_text("[[passes]]\n" + "\n".join(lines) + "\n", encoding="utf-8")
    expect(read_recipe(as_toml) == (subject,), "a .toml file gives another pass")


def check_schema(subject: Pass, folder: Path) -> None:
    """The schema of recipes knows the pass and each of its options."""
    del folder
    schema = json.loads(json.dumps(recipe_schema()))
    entries = schema["properties"]["passes"]["items"]["oneOf"]
    mine = [each for each in entries if each["properties"]["pass"]["const"] == subject.name]
    expect(len(mine) == 1, f"{len(mine)} entries of the schema are for {subject.name!r}")
    expect(
        set(mine[0]["properties"]) == {"pass", *type(subject).model_fields},
        f"the schema has other options: {sorted(mine[0]['properties'])}",
    )
    expect(mine[0]["additionalProperties"] is False, "the schema allows unknown options")


def check_strength(subject: Pass, folder: Path) -> None:
    """What a search turns is an option that takes every value between its ends."""
    del folder
    strength = subject.strength
    if strength is None:
        message = refusal(lambda: subject.at(1.0))
        expect("there is no option" in message, f"without a strength it says {message!r}")
        return
    plain = type(subject)()
    for share in (0.0, 0.5, 1.0):
        value = getattr(plain.at(share), strength.option)
        expect(value == strength.at(share), f"{strength.option} = {value} at {share}")
    expect(plain.at(0.0) != plain.at(1.0), "the mildest is the strongest")


def check_command(subject: Pass, folder: Path) -> None:
    """The help of the command lists every option and shows an example."""
    del folder
    command = pass_command(type(subject))
    text = command.get_help(click.Context(command, info_name=f"onnxcomp {subject.name}"))
    for option in type(subject).model_fields:
        flag = "--" + option.replace("_", "-")
        expect(re.search(rf"{flag}\b", text), f"--help does not list {flag}")
    expect(f"Example: onnxcomp {subject.name} " in text, "--help shows no example")


def _outside(cls: type[Pass]) -> Iterator[tuple[str, float]]:
    """Yield each bounded option with a value just beyond each of its bounds."""
    for option, field in cls.model_fields.items():
        for constraint in field.metadata:
            for kind, step in STEPS_OUTSIDE.items():
                if hasattr(constraint, kind):
                    yield option, getattr(constraint, kind) + step

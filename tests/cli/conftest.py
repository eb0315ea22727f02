"""The command line in this process, as its entry point runs it."""

import sys
from dataclasses import dataclass

import pytest

from onnxcomp.cli import main


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str


@pytest.fixture
def call(monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["onnxcomp", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        written = capsys.readouterr()
        return Ran(left.value.code or 0, written.out, written.err)

    return run

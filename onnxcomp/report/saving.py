"""Reports as files, in the form that the name asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxcomp.errors import ModelError, OptionError
from onnxcomp.graph.saving import replacing
from onnxcomp.report.markdown import report_markdown, sensitivity_markdown
from onnxcomp.report.pages import report_page, sensitivity_page
from onnxcomp.report.sensitivities import Sensitivity

if TYPE_CHECKING:
    from pathlib import Path

    from onnxcomp.report.records import Report

SUFFIXES = (".html", ".md", ".json")


def check_report(path: Path) -> None:
    """Refuse a report that cannot be made before hours of work, not after.

    Raises:
        OptionError: It is of another kind.
    """
    if path.suffix.lower() not in SUFFIXES:
        kinds = f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
        raise OptionError(f"report {str(path)!r}: give a name that ends in {kinds}")


def save_report(report: Report | Sensitivity, path: Path) -> None:
    """Write a report as a page, as Markdown or as JSON; the old file stays until it is whole.

    Args:
        report: What a run came to, or a ranking.
        path: A ``.html``, ``.md`` or ``.json``.

    Raises:
        ModelError: The folder cannot be written.
        OptionError: It is of another kind.
    """
    check_report(path)
    text = _text(report, path.suffix.lower())
    try:
        with replacing(path) as file:
            file.write(text.encode())
    except OSError as error:
        reason = (error.strerror or "cannot be written").lower()
        raise ModelError(f"cannot write {str(path)!r}: {reason}") from error


def _text(report: Report | Sensitivity, kind: str) -> str:
    if kind == ".json":
        return report.to_json() + "\n"
    if isinstance(report, Sensitivity):
        return sensitivity_page(report) if kind == ".html" else sensitivity_markdown(report)
    return report_page(report) if kind == ".html" else report_markdown(report)

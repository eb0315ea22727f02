"""What a run did and what it cost: as data, as tables, as HTML."""

from onnxcomp.report.records import FileRecord, Report, Step
from onnxcomp.report.tables import benchmark_table, report_html, report_table, size, validation_table

__all__ = [
    "FileRecord",
    "Report",
    "Step",
    "benchmark_table",
    "report_html",
    "report_table",
    "size",
    "validation_table",
]

"""What a run did and what it cost: as data, as tables, as pages, as Markdown."""

from onnxcomp.report.environment import Environment, environment
from onnxcomp.report.frozen import Record
from onnxcomp.report.graph_changes import GraphChange, graph_change
from onnxcomp.report.inspection import Inspection, inspect_model, inspection_table
from onnxcomp.report.markdown import report_markdown, sensitivity_markdown
from onnxcomp.report.pages import report_page, sensitivity_page
from onnxcomp.report.plots import check_plot, save_sensitivity_plot
from onnxcomp.report.records import (
    FileRecord,
    Report,
    Search,
    Step,
    Trial,
    record_of_data,
    record_of_files,
)
from onnxcomp.report.saving import SUFFIXES, check_report, save_report
from onnxcomp.report.sensitivities import (
    ROWS,
    RankedWeight,
    Sensitivity,
    Treatment,
    sensitivity_table,
)
from onnxcomp.report.tables import report_html, report_table
from onnxcomp.report.trials import pipeline_in_words, trial_line

__all__ = [
    "ROWS",
    "SUFFIXES",
    "Environment",
    "FileRecord",
    "GraphChange",
    "Inspection",
    "RankedWeight",
    "Record",
    "Report",
    "Search",
    "Sensitivity",
    "Step",
    "Treatment",
    "Trial",
    "check_plot",
    "check_report",
    "environment",
    "graph_change",
    "inspect_model",
    "inspection_table",
    "pipeline_in_words",
    "record_of_data",
    "record_of_files",
    "report_html",
    "report_markdown",
    "report_page",
    "report_table",
    "save_report",
    "save_sensitivity_plot",
    "sensitivity_markdown",
    "sensitivity_page",
    "sensitivity_table",
    "trial_line",
]

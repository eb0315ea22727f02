"""What a run did and what it cost: as data, as tables, as HTML."""

from onnxcomp.report.inspection import Inspection, inspect_model, inspection_table
from onnxcomp.report.plots import check_plot, save_sensitivity_plot
from onnxcomp.report.records import (
    FileRecord,
    Record,
    Report,
    Search,
    Step,
    Trial,
    record_of_data,
    record_of_files,
)
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
    "FileRecord",
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
    "inspect_model",
    "inspection_table",
    "pipeline_in_words",
    "record_of_data",
    "record_of_files",
    "report_html",
    "report_table",
    "save_sensitivity_plot",
    "sensitivity_table",
    "trial_line",
]

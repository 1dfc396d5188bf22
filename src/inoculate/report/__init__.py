"""What was found and done, as files: a page, its data, a model card, and how to repeat it."""

from inoculate.report.layout import DEFAULT_LIMITS, Comparison, Dissection, Report
from inoculate.report.picture import downsample_mask
from inoculate.report.where import where_sentence
from inoculate.report.write import write_comparison, write_dissection, write_report

__all__ = [
    "DEFAULT_LIMITS",
    "Comparison",
    "Dissection",
    "Report",
    "downsample_mask",
    "where_sentence",
    "write_comparison",
    "write_dissection",
    "write_report",
]

"""What was found and done, as files: a page, its data, a model card, and how to repeat it."""

from inoculate.report.layout import DEFAULT_LIMITS, Dissection, Report
from inoculate.report.picture import downsample_mask
from inoculate.report.study import Comparison, Study
from inoculate.report.tables import study_markdown
from inoculate.report.where import where_sentence
from inoculate.report.write import write_dissection, write_report, write_study

__all__ = [
    "DEFAULT_LIMITS",
    "Comparison",
    "Dissection",
    "Report",
    "Study",
    "downsample_mask",
    "study_markdown",
    "where_sentence",
    "write_dissection",
    "write_report",
    "write_study",
]

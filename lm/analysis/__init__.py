"""Analysis of tables of results: paired statistics, figures and reports. Needs no JAX."""

from lm.analysis.ablation import ablation_report
from lm.analysis.paired import ArmResult, Comparison, compare
from lm.analysis.report import Code, Plot, Report, ReportError, Section, Table
from lm.analysis.sweep import sweep_report
from lm.analysis.tables import TableError
from lm.analysis.text import Column

__all__ = [
    "ArmResult",
    "Code",
    "Column",
    "Comparison",
    "Plot",
    "Report",
    "ReportError",
    "Section",
    "Table",
    "TableError",
    "ablation_report",
    "compare",
    "sweep_report",
]

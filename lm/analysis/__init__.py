"""Analysis of tables of results: paired statistics, figures and reports. Needs no JAX."""

from lm.analysis.paired import ArmResult, Comparison, compare
from lm.analysis.report import Code, Plot, Report, Section, Table
from lm.analysis.tables import TableError
from lm.analysis.text import Column

__all__ = ["ArmResult", "Code", "Column", "Comparison", "Plot", "Report", "Section", "Table", "TableError", "compare"]

"""Reports: one HTML file that shows what was done to a model, from its record alone."""

from polyad.report.study import Quantity, Study, Trial, write_study
from polyad.report.write import check, write

__all__ = ["Quantity", "Study", "Trial", "check", "write", "write_study"]

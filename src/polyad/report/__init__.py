"""Reports: one HTML file that shows what was done to a model, from its record alone."""

from polyad.report.study import Quantity, Study, StudyTrial, write_study
from polyad.report.write import check, write

__all__ = ["Quantity", "Study", "StudyTrial", "check", "write", "write_study"]

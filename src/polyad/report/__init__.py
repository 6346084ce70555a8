"""One HTML file that shows what was done to a model, from the record of it alone."""

from polyad.report.write import check, write

__all__ = ["check", "write"]

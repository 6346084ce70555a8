"""Models written in the files of other engines, each run and compared before it is put in its place."""

from polyad.export.export import FORMATS, check_options, export, fit_recipe
from polyad.export.result import ExportResult

__all__ = ["FORMATS", "ExportResult", "check_options", "export", "fit_recipe"]

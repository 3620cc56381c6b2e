"""Writes a finished or unfinished run as one self-contained HTML page."""

from ganseg_dist.report.page import write_report

__all__ = ["write_report"]

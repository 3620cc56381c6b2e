"""A finished or half-finished run as one HTML page that opens anywhere."""

from ganseg_dist.report.page import write_report

__all__ = ["write_report"]

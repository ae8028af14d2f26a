"""Reports of a fit: pictures, a page and files on disk."""

from pelton.report.write import check_output, write_report

__all__ = ["check_output", "write_report"]

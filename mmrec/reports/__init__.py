"""Reports: plain tables first (`tables`, `sensitivity`, ...), then figures, then one page."""

from mmrec.reports.report import write_report

__all__ = ["write_report"]

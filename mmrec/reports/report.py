"""Writing a report: the page, and the same numbers as CSV and JSON beside it."""

import json
from pathlib import Path

from mmrec.reports.numbers import numbers
from mmrec.reports.page import page
from mmrec.study.tables import StudyTables


def write_report(tables: StudyTables, folder: Path) -> Path:
    """Write `index.html`, `tables/*.csv` and `results.json`; the same tables give the same bytes.

    Args:
        tables: what to report.
        folder: made if needed; files of an earlier report are replaced, others left alone.

    Returns:
        The page.
    """
    found = numbers(tables)
    (folder / "tables").mkdir(parents=True, exist_ok=True)
    for name, table in found.tables().items():
        table.to_csv(folder / "tables" / f"{name}.csv", index=False)
    results = {"run": tables.run, **found.to_json()}
    written = json.dumps(results, indent=None, allow_nan=False, default=str)
    (folder / "results.json").write_text(written + "\n", encoding="utf-8")
    index = folder / "index.html"
    index.write_text(page(tables, found), encoding="utf-8")
    return index

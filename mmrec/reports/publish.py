"""Writing a report into a run folder, wherever that is."""

import tempfile
from pathlib import Path

from mmrec.reports import write_report
from mmrec.study.store import Folder
from mmrec.study.tables import StudyTables


def publish(tables: StudyTables, folder: Folder) -> str:
    """Write the report into the run folder and return the page's address."""
    name = "report" if tables.run["kind"] == "grid" else "report-search"
    if folder.is_local:
        return str(write_report(tables, folder.path / name))
    with tempfile.TemporaryDirectory() as local:
        page = write_report(tables, Path(local))
        for file in sorted(Path(local).rglob("*")):
            if file.is_file():
                (folder / name).write(str(file.relative_to(local)), file.read_bytes())
        return f"{folder.address}/{name}/{page.name}"

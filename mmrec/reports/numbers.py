"""All numbers of a report, computed once: what the page, the CSV files and results.json share."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from mmrec.reports import cost
from mmrec.reports.claims import claims
from mmrec.reports.exhibit import Exhibit
from mmrec.reports.exhibits import exhibits
from mmrec.reports.markup import columns, plain
from mmrec.reports.tables import cells, completeness, published_beside_ours
from mmrec.study.tables import StudyTables


@dataclass(frozen=True)
class Numbers:
    """Every number of a report."""

    answer: str
    claims: pd.DataFrame
    completeness: dict[str, int]
    cells: pd.DataFrame
    trials: pd.DataFrame
    exhibits: list[Exhibit]
    published: pd.DataFrame
    totals: dict[str, float]
    by_state: pd.DataFrame
    flags: list[str]
    provenance: pd.DataFrame
    reproduce: pd.DataFrame

    def tables(self) -> dict[str, pd.DataFrame]:
        """Every table by its file's stem."""
        return {
            "claims": self.claims,
            "cells": self.cells,
            "trials": self.trials,
            **{exhibit.key: exhibit.table for exhibit in self.exhibits},
            "published": self.published,
            "cost": self.by_state,
            "provenance": self.provenance,
            "reproduce": self.reproduce,
        }

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values; a table is its columns' names and values."""
        return {
            "answer": self.answer,
            "completeness": self.completeness,
            "findings": {exhibit.key: exhibit.finding for exhibit in self.exhibits},
            "cost": {name: plain(value) for name, value in self.totals.items()},
            "flags": self.flags,
            "tables": {
                name: dict(zip(map(str, table.columns), columns(table), strict=True))
                for name, table in self.tables().items()
            },
        }


def numbers(tables: StudyTables) -> Numbers:
    """Everything that a report of `tables` says."""
    return Numbers(
        answer=tables.answer,
        claims=claims(tables),
        completeness=completeness(tables),
        cells=cells(tables),
        trials=tables.trials,
        exhibits=exhibits(tables),
        published=published_beside_ours(tables),
        totals=cost.totals(tables),
        by_state=cost.by_state(tables),
        flags=cost.flags(tables),
        provenance=cost.provenance(tables),
        reproduce=cost.reproduce(tables),
    )

"""What became of each claim, as a plain table."""

from collections.abc import Sequence

import pandas as pd

from mmrec.study.tables import StudyTables
from mmrec.study.verdicts import Judged

_FIELDS = (
    "verdict", "effect", "relative", "low", "high", "p", "p_corrected", "user_low", "user_high",
    "mde", "n", "unit", "detail",
)  # fmt: skip


def claims(tables: StudyTables) -> pd.DataFrame:
    """One row a claim: `claim`, `source`, `topic`, `arm`, and every field of its verdict."""
    return claim_rows(tables.claims)


def claim_rows(claims: Sequence[Judged]) -> pd.DataFrame:
    """The same of claims without a study's tables."""
    said = {"claim": "text", "source": "source", "topic": "topic", "arm": "arm"}
    rows = [
        {column: getattr(claim, name) for column, name in said.items()}
        | {name: getattr(verdict, name) for name in _FIELDS}
        for claim, verdict in claims
    ]
    return pd.DataFrame(rows, columns=[*said, *_FIELDS])

"""What became of each claim, as a plain table."""

import pandas as pd

from mmrec.study.tables import StudyTables

_FIELDS = (
    "verdict", "effect", "relative", "low", "high", "p", "p_corrected", "user_low", "user_high",
    "mde", "n", "unit", "detail",
)  # fmt: skip


def claims(tables: StudyTables) -> pd.DataFrame:
    """One row a claim: `claim`, `source`, `topic`, `arm`, and every field of its verdict."""
    said = {"claim": "text", "source": "source", "topic": "topic", "arm": "arm"}
    rows = [
        {column: getattr(claim, name) for column, name in said.items()}
        | {name: getattr(verdict, name) for name in _FIELDS}
        for claim, verdict in tables.claims
    ]
    return pd.DataFrame(rows, columns=[*said, *_FIELDS])

"""What became of each claim, as a plain table."""

import pandas as pd

from mmrec.study.tables import StudyTables

_FIELDS = (
    "verdict", "effect", "relative", "low", "high", "p", "p_corrected", "user_low", "user_high",
    "mde", "n", "unit", "detail",
)  # fmt: skip


def claims(tables: StudyTables) -> pd.DataFrame:
    """One row a claim: `claim`, `source`, and every field of its verdict."""
    rows = [
        {"claim": claim.text, "source": claim.source, **{f: getattr(v, f) for f in _FIELDS}}
        for claim, v in tables.claims
    ]
    return pd.DataFrame(rows, columns=["claim", "source", *_FIELDS])

"""Claims about two numbers of the same trials, such as an accuracy and what chance gives.

They follow the one procedure of `mmrec.study.claims`; here the numbers of a trial are the pair.
"""

from dataclasses import dataclass, replace

from mmrec.stats import SMALLEST, Paired, Verdict, bootstrap_t, judge_better
from mmrec.study import text
from mmrec.study.claims import Absent, ClaimData, ClaimTest, Where, best_cell, span, worded


@dataclass(frozen=True)
class Exceeds(ClaimTest):
    """In the best cell of `cell` one number is above another."""

    cell: Where
    column: str
    """Such as `measure.gap_accuracy`."""
    over: str
    """Such as `measure.gap_chance`."""
    smallest: float = SMALLEST
    """Smallest effect of interest, as a share of the mean of `over`."""

    def judge(self, data: ClaimData, alpha: float) -> Verdict:
        side = best_cell(self.cell, data)
        absent = [name for name in (self.column, self.over) if name not in side.rows]
        if absent:
            raise Absent(f"the trials have no column {absent[0]!r}")
        rows = side.rows.dropna(subset=[self.column, self.over])
        if rows.empty:
            raise Absent(f"{self.column} and {self.over} were not measured: {side.words}")
        high_S, low_S = (rows[name].to_numpy(float) for name in (self.column, self.over))
        verdict = judge_better(Paired.of(high_S, low_S), alpha, self.smallest)
        missing = len(side.rows) - len(rows)
        words = [
            f"{side.words}: {text.metric(self.column)} {text.number(float(high_S.mean()))} against"
            f" {text.metric(self.over)} {text.number(float(low_S.mean()))}",
            f"{missing} seeds have no measure" if missing else "",
            f"bootstrap-t {span(bootstrap_t(high_S - low_S, alpha))}",
        ]
        return worded(replace(verdict, unit=self.column), 1 - alpha, words)

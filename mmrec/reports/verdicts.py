"""Claims about arms, as plain tables: arm by topic, counted by group, variant beside variant."""

import itertools

import pandas as pd

from mmrec.reports.arms import arms
from mmrec.study.tables import StudyTables
from mmrec.study.verdicts import VERDICTS
from mmrec.study.views import Verdicts

UNDECIDED = ("too few seeds", "not tested")

_FIELDS = ["verdict", "effect", "relative", "low", "high", "n", "p_corrected"]


def verdicts(tables: StudyTables) -> pd.DataFrame:
    """One row a claim that has a topic and an arm, by arm: `group arm topic`, then its verdict."""
    groups = arms(tables)
    rows = [
        {"group": groups.get(claim.arm, ""), "arm": claim.arm, "topic": claim.topic}
        | {field: getattr(verdict, field) for field in _FIELDS}
        for claim, verdict in tables.claims
        if claim.topic and claim.arm
    ]
    place = {arm: nth for nth, arm in enumerate(groups)}
    rows.sort(key=lambda row: place.get(row["arm"], len(place)))
    return pd.DataFrame(rows, columns=["group", "arm", "topic", *_FIELDS])


def counts(tables: StudyTables) -> pd.DataFrame:
    """One row a group and topic: how many claims have each verdict, and how many there are."""
    table = verdicts(tables)
    places = [table["group"], table["topic"]]
    keys = table[["group", "topic"]].drop_duplicates()
    if table.empty:
        return pd.DataFrame(columns=["group", "topic", *VERDICTS, "claims"])
    found = pd.crosstab(places, table["verdict"]).reindex(columns=list(VERDICTS), fill_value=0)
    found = found.assign(claims=found.sum(axis=1)).reset_index()
    return keys.merge(found, on=["group", "topic"]).reset_index(drop=True)


def survival(tables: StudyTables, view: Verdicts) -> pd.DataFrame:
    """One row a topic of an arm that has a variant beside it: do both have the same verdict?

    The variant's name is the arm's with one of the words `view.variants` in it. `survives` is yes,
    no, or empty where one of the two is not decided.
    """
    by_place: dict[tuple[str, str], list[str]] = {}
    for claim, verdict in tables.claims:
        if claim.topic and claim.arm:
            by_place.setdefault((claim.arm, claim.topic), []).append(verdict.verdict)
    rows = []
    for variant, ((arm, topic), after) in itertools.product(view.variants, by_place.items()):
        words = arm.split()
        plain = " ".join(word for word in words if word != variant)
        before = by_place.get((plain, topic), [])
        if variant not in words or not before:
            continue
        known = not {*before, *after} & set(UNDECIDED)
        survives = ("yes" if before == after else "no") if known else ""
        rows.append([plain, variant, topic, ", ".join(before), ", ".join(after), survives])
    names = ["arm", "variant", "topic", "verdict", "verdict of the variant", "survives"]
    return pd.DataFrame(rows, columns=names)

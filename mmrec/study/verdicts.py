"""Verdicts in words: one with its numbers, or many of them counted."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Protocol

from mmrec.stats import Verdict
from mmrec.study import text


class Stated(Protocol):
    """What a report needs of a claim."""

    @property
    def text(self) -> str: ...

    @property
    def source(self) -> str: ...

    @property
    def topic(self) -> str: ...

    @property
    def arm(self) -> str: ...


Judged = tuple[Stated, Verdict]

OPENING = {
    "supported": "Yes on {}",
    "refuted": "No on {}",
    "equivalent": "No difference that matters on {}",
    "not separable": "Not separable from noise on {}",
    "too few seeds": "Too few seeds on {} for a verdict",
    "not tested": "Not tested on {}",
}
"""How an answer begins that rests on one verdict; to be formatted with the dataset's name."""
VERDICTS = tuple(OPENING)
"""All words of a verdict, in the order in which they are counted."""


def numbers_in_words(verdict: Verdict) -> str:
    """In brackets: effect, interval and seeds; beside no effect, what could have been seen."""
    if math.isnan(verdict.effect):
        return f" ({verdict.detail})" if verdict.detail else ""
    parts = [f"{effect(verdict, verdict.effect)} {text.metric(verdict.unit)}".rstrip()]
    if not math.isnan(verdict.low):
        ends = f"{effect(verdict, verdict.low)} to {effect(verdict, verdict.high)}"
        parts.append(f"{level(verdict)}interval {ends}")
    parts.append(text.count(verdict.n, "seed"))
    if seen := detectable(verdict):
        parts.append(f"an effect of {seen} would have been seen")
    return f" ({', '.join(parts)})"


def effect(verdict: Verdict, value: float) -> str:
    """An effect or an end of its interval: signed, unless it is a share or an exponent."""
    if verdict.unit.startswith("cost."):
        return f"{'+' * (value > 0)}{text.number(value)}"
    plain = verdict.unit.startswith(("share", "exponent"))
    return text.score(value, 2) if plain else text.signed(value)


def detectable(verdict: Verdict) -> str:
    """The effect that would have been seen, without a sign; empty beside a decision."""
    if verdict.verdict != "not separable" or math.isnan(verdict.mde):
        return ""
    of_cost = verdict.unit.startswith("cost.")
    return text.number(verdict.mde) if of_cost else text.score(verdict.mde)


def level(verdict: Verdict) -> str:
    """`98.3 % ` if the verdict says at which level its interval is (Holm's correction moves it)."""
    found = re.search(r"interval at ([\d.]+) %", verdict.detail)
    return f"{found[1]} % " if found else ""


# --- many


def by_topic(claims: Iterable[Judged]) -> dict[str, list[Judged]]:
    """The claims of each topic, in the order in which topics are first named; "" is none."""
    topics: dict[str, list[Judged]] = {}
    for claim, verdict in claims:
        topics.setdefault(claim.topic, []).append((claim, verdict))
    return topics


def tally(verdicts: Sequence[Verdict], noun: str) -> str:
    """`supported for 6 of 8 models, refuted for 1, not separable for 1`; not for no verdict."""
    have = Counter(verdict.verdict for verdict in verdicts)
    (first, most), *rest = [(word, have[word]) for word in VERDICTS if have[word]]
    whole = text.count(len(verdicts), noun)
    if not rest:
        return f"{first} for {'all ' * (most > 1)}{whole}"
    return ", ".join([f"{first} for {most} of {whole}", *(f"{word} for {n}" for word, n in rest)])


def count_in_words(found: Sequence[Judged], *, variants: bool = True) -> str:
    """The tally of one topic over models; variants of a model (`X such` beside `X`) are no others.

    How many of the variants are supported stands in brackets behind it, if asked for.
    """
    named = {claim.arm for claim, _ in found}
    kinds: dict[str, list[Verdict]] = {}
    for claim, verdict in found:
        kinds.setdefault(variant(claim.arm, named), []).append(verdict)
    words = tally(kinds.pop(""), "model" if all(named) else "claim")
    beside = [
        f"{kind}: {sum(v.verdict == 'supported' for v in verdicts)} of {len(verdicts)} supported"
        for kind, verdicts in kinds.items()
    ]
    return f"{words} ({', '.join(beside)})" if beside and variants else words


def variant(arm: str, named: Iterable[str]) -> str:
    """`described` for the arm `X described` if `X` is named too; empty if it is no variant."""
    parents = [name for name in named if name and arm.startswith(f"{name} ")]
    return arm.removeprefix(f"{min(parents, key=len)} ") if parents else ""

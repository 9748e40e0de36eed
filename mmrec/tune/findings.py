"""What the pre-flight finds, from what each node answered: expected against found. No Ray here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ANSWER_SECONDS = 60.0
"""A node that has not answered by then is a finding."""
SKEW_SECONDS = 5.0
"""Clocks may differ by so much: checkpoints and leases are told by them."""
LEAST_FREE = 2**30
"""Bytes; less is said, and not refused."""


@dataclass(frozen=True)
class Node:
    """A node as Ray knows it."""

    id: str
    name: str
    """Host and address; the beginning of the id too, where several nodes share one host."""
    gpus: float
    """How many Ray promises there."""


@dataclass(frozen=True)
class Expected:
    """What every node has to agree with: the driver's."""

    versions: Mapping[str, str]
    digest: str
    """Of the dataset."""
    address: str
    """Of the run folder."""
    gpus: float
    """Of a trial."""


def findings(expected: Expected, node: Node, facts: Mapping[str, Any] | None) -> list[str]:
    """What is wrong with a node; `facts` is what it answered, None if it did not."""
    if facts is None:
        return [f"no answer in {ANSWER_SECONDS:.0f} s"]
    if "lost" in facts:
        return [f"the check failed: {facts['lost']}"]
    found = [
        text
        for name, version in expected.versions.items()
        if (text := _differs(facts, name, version, f"{name} "))
    ]
    if "code" in facts["errors"]:
        return found  # without mmrec there is nobody to answer the rest
    found += _storage(expected.address, facts)
    if text := _differs(facts, "dataset", expected.digest, "what it was given of the dataset is "):
        found.append(text)
    if expected.gpus > 0 and node.gpus > 0:
        if "gpus" in facts["errors"]:
            found.append(f"GPUs: {facts['errors']['gpus']}")
        elif facts["gpus"] < node.gpus:
            found.append(f"torch sees {facts['gpus']} GPU(s), Ray promises {node.gpus:g}")
    if abs(facts["skew"]) > SKEW_SECONDS:
        how = "ahead of" if facts["skew"] > 0 else "behind"
        found.append(f"its clock is {abs(facts['skew']):.0f} s {how} the driver's")
    return found


def _differs(facts: Mapping[str, Any], name: str, expected: str, words: str) -> str:
    """Expected against found; empty where they agree."""
    if name in facts["errors"]:
        return f"{name}: {facts['errors'][name]}, expected {expected}"
    return "" if facts[name] == expected else f"{words}{facts[name]}, expected {expected}"


def _storage(address: str, facts: Mapping[str, Any]) -> list[str]:
    if "storage" in facts["errors"]:
        return [f"storage {address}: {facts['errors']['storage']}"]
    if not facts["storage"]:
        return [f"storage {address} is not shared: what the driver wrote is not there"]
    if not facts["returned"]:
        return [f"storage {address} is not shared: the driver does not see what this node wrote"]
    return []


def warnings(facts: Mapping[str, Any]) -> list[str]:
    """What should be known of a node, and keeps nobody from running."""
    free = facts.get("free")
    if free is None or free >= LEAST_FREE:
        return []
    return [f"{free / 2**20:.0f} MiB are free where the run folder is"]


def table(
    nodes: Sequence[Node], wrong: Mapping[str, Sequence[str]], notes: Mapping[str, Sequence[str]]
) -> str:
    """One line a node: ok, or what is wrong with it."""
    bad = sum(bool(wrong[node.id]) for node in nodes)
    width = max(len(node.name) for node in nodes)
    lines = [f"pre-flight: {bad} of {len(nodes)} node(s) cannot take part; no trial was started"]
    for node in nodes:
        text = "; ".join([*(wrong[node.id] or ["ok"]), *notes[node.id]])
        lines.append(f"  {node.name:{width}}  {text}")
    return "\n".join(lines)

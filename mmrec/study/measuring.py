"""Running a scaling study: how far each method goes, what is missing, and where it is kept.

A pilot goes up the sizes of each method until one would pass a limit. What it measured decides
nothing else: since it goes up in order, a machine that slows down would look like growth. Then all
seeds of all sizes that were reached are measured in one shuffled order.

The rows are kept in `measurements.csv` of a run folder, which is written anew after each one; a
row is known by all that decides its numbers, so that running again measures only what is missing.
"""

import dataclasses
import hashlib
import importlib.util
import json
import math
import os
import platform
import random
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from mmrec.study.claims import decide
from mmrec.study.database import Refused
from mmrec.study.probe import Lost, Probe, clock_of
from mmrec.study.provenance import command_line, git_state, hardware, now, versions
from mmrec.study.scaling import (
    PILOT,
    QUANTITIES,
    Scaling,
    ScalingTables,
    check_sizes,
    evidence,
)
from mmrec.study.store import Folder
from mmrec.study.writer import one_writer

FILE = "measurements.csv"
PATIENCE = 4
"""A step may take this many times its limit before it is given up; and as many seconds more."""
SHARE = 0.6
"""Of the memory that is free when the study starts: the limit unless one is given."""
_KEY = ("method", "nodes", "seed", "device", "threads", "hardware", "torch", "code")
_FOUND = ("seconds", "wall", "mib", "runs", "started", "load", "host")
_SHUFFLE = 0

Say = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What the command line can say."""

    sizes: tuple[int, ...] = ()
    """Empty: the study's."""
    methods: tuple[str, ...] = ()
    """By name; empty: all."""
    seeds: int | None = None
    seconds: float | None = None
    memory_gib: float | None = None
    threads: int = 1
    device: str = "cpu"
    smoke: bool = False
    out: str = "runs"
    fresh: bool = False


@dataclass(frozen=True)
class Plan:
    """A study and the options, with every default filled in and checked.

    Raises:
        KeyError, ValueError: an option does not fit; the message says which and what would.
    """

    scaling: Scaling
    options: Options
    sizes: tuple[int, ...]
    seeds: int
    seconds: float
    mib: float
    key: dict[str, Any]
    """What all rows have in common of `_KEY`."""
    folder: Folder

    @classmethod
    def of(cls, scaling: Scaling, options: Options) -> "Plan":
        """From what was asked."""
        for name in options.methods:
            scaling.method(name)
        sizes = options.sizes or (scaling.smoke_sizes if options.smoke else scaling.sizes)
        check_sizes(sizes)
        seeds = _or(options.seeds, scaling.smoke_seeds if options.smoke else scaling.seeds)
        seconds = _or(options.seconds, scaling.seconds)
        free = SHARE * free_bytes(options.device) / 2**30
        gib = _or(options.memory_gib, free)
        asked = {"seeds": seeds, "seconds": seconds, "memory-gib": gib, "threads": options.threads}
        for name, value in asked.items():
            if not value > 0:
                raise ValueError(f"--{name} must be above 0, got {value}")
        key = {
            "device": options.device,
            "threads": options.threads,
            "hardware": hardware(),
            "torch": torch.__version__,
            "code": code_version(scaling),
        }
        machine = hashlib.sha256(key["hardware"].encode()).hexdigest()[:8]
        host = re.sub(r"[^A-Za-z0-9.-]", "-", platform.node())
        device = re.sub(r"[^a-z0-9]", "", options.device)
        place = f"{host}-{machine}-{device}-{options.threads}"
        folder = Folder.at(options.out) / scaling.name / place
        return cls(scaling, options, sizes, seeds, seconds, 1024 * gib, key, folder)

    @property
    def methods(self) -> list[str]:
        """The names of those that are measured, in the study's order."""
        wanted = self.options.methods
        return [m.name for m in self.scaling.methods if not wanted or m.name in wanted]


def _or(asked: Any, default: Any) -> Any:
    return default if asked is None else asked


def code_version(scaling: Scaling) -> str:
    """8 hex digits of the code that decides the numbers, that of measuring among it."""
    digest = hashlib.sha256(str(scaling.version).encode())
    for name in ("mmrec.study.probe", "mmrec.study.memory", *scaling.code):
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise ValueError(f"there is no module {name}")
        digest.update(Path(spec.origin).read_bytes())
    return digest.hexdigest()[:8]


def free_bytes(device: str) -> float:
    """Memory that can be had on the device now; a container's limit counts.

    Raises:
        ValueError: the device is neither cpu nor a GPU that is there.
    """
    if device.startswith("cuda"):
        if not torch.cuda.is_available():
            raise ValueError(f"--device {device}: torch finds no GPU here")
        return float(torch.cuda.mem_get_info(device)[0])
    if device != "cpu":
        raise ValueError(f"--device takes cpu or cuda, got {device}")
    info = Path("/proc/meminfo").read_text()
    free = 1024.0 * int(re.findall(r"MemAvailable:\s+(\d+) kB", info)[0])
    limit, used = (Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.current"))
    if limit.exists() and limit.read_text().strip() != "max":
        free = min(free, float(limit.read_text()) - float(used.read_text()))
    return free


# --- the rows


class Rows:
    """What has been measured, in the run folder."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._done: set[tuple[str, int, int]] = set()
        names = [*_KEY, *_FOUND]
        self.table = pd.DataFrame(columns=names)
        if plan.folder.exists(FILE):
            words = dict.fromkeys((*_KEY, "started", "host"), str) | {"nodes": int, "seed": int}
            self.table = pd.read_csv(plan.folder.path / FILE, dtype={**words, "threads": int})
            lacking = set(names) - set(self.table)
            if lacking:
                raise Refused(
                    f"{plan.folder.address}/{FILE} has no {sorted(lacking)}: --fresh moves it aside"
                )
        known = self.known()
        self._done.update(zip(known["method"], known["nodes"], known["seed"], strict=True))

    def known(self) -> pd.DataFrame:
        """The rows that were made as this plan would make them, of its methods."""
        fits = self.table["method"].isin(self._plan.methods)
        for name, value in self._plan.key.items():
            fits &= self.table[name] == value
        return self.table[fits]

    def has(self, method: str, nodes: int, seed: int) -> bool:
        """Whether there is such a row."""
        return (method, nodes, seed) in self._done

    def add(self, row: dict[str, Any]) -> None:
        """One more, on disk before the next is measured."""
        more = pd.DataFrame([{**self._plan.key, **row}])
        self.table = more if self.table.empty else pd.concat([self.table, more], ignore_index=True)
        content = self.table[[*_KEY, *_FOUND]].to_csv(index=False)
        self._plan.folder.write(FILE, content.encode())
        self._done.add((row["method"], row["nodes"], row["seed"]))


# --- measuring


def run(plan: Plan, say: Say) -> ScalingTables:
    """Measure what is missing, and judge. KeyboardInterrupt passes; rows so far are kept.

    Raises:
        Refused: another process measures into the folder.
    """
    with one_writer(plan.folder, None, ""):
        if plan.options.fresh:
            _aside(plan.folder)
        plan.scaling.check()
        rows = Rows(plan)
        with Probe(plan.scaling, plan.options.device, plan.options.threads) as probe:
            reached, unreached = climb(plan, rows, probe, say)
            fill(plan, rows, probe, reached, say)
        found = tables(plan, rows, reached, unreached)
        plan.folder.write("run.json", json.dumps(found.run, indent=1).encode())
        return found


def _aside(folder: Folder) -> None:
    """`--fresh`: what was measured is kept under another name."""
    if folder.exists(FILE):
        (folder.path / FILE).rename(folder.path / f"{FILE}.{now().replace(':', '')}")


def climb(
    plan: Plan, rows: Rows, probe: Probe, say: Say
) -> tuple[dict[str, list[int]], pd.DataFrame]:
    """The sizes that each method reaches, and the first that it does not: `method nodes reason`."""
    reached: dict[str, list[int]] = {name: [] for name in plan.methods}
    unreached = []
    for method in plan.methods:
        for nodes in plan.sizes:
            reason = beyond(plan, rows.known(), method, nodes)
            if not reason and not rows.has(method, nodes, PILOT):
                try:
                    row = measure(plan, rows, probe, method, nodes, PILOT)
                    say(f"pilot: {method}, N = {nodes:,}: {row['seconds']:.3g} s,"
                        f" {row['mib']:.4g} MiB")  # fmt: skip
                    reason = beyond(plan, rows.known(), method, nodes)
                except Lost as lost:
                    reason = str(lost)
            if reason:
                say(f"pilot: {method}, N = {nodes:,}: not reached, {reason}")
                unreached.append((method, nodes, reason))
                break
            reached[method].append(nodes)
    return reached, pd.DataFrame(unreached, columns=["method", "nodes", "reason"])


def beyond(plan: Plan, known: pd.DataFrame, method: str, nodes: int) -> str:
    """Why a size is not to be measured; empty if it may be.

    What the pilot measured there decides, else what it predicts.
    """
    pilot = known[(known["method"] == method) & (known["seed"] == PILOT)].sort_values("nodes")
    limits = {"seconds": (plan.seconds, 1.0, "s"), "mib": (plan.mib, 1024.0, "GiB")}
    for quantity, (limit, scale, unit) in limits.items():
        points = list(zip(pilot["nodes"].astype(int), pilot[quantity].astype(float), strict=True))
        below = [point for point in points if point[0] < nodes]
        there = dict(points).get(nodes)
        value = predicted(below, nodes) if there is None else there
        if value > limit:
            verb = "would take about" if there is None else "took"
            return f"{verb} {value / scale:.3g} {unit}, the limit is {limit / scale:.3g} {unit}"
    return ""


def predicted(points: Sequence[tuple[int, float]], nodes: int) -> float:
    """A cost at a larger size, by the growth between the last two points.

    It is taken as linear at least, and after a single point as quadratic; of none it is 0.
    """
    if not points:
        return 0.0
    (last, cost), exponent = points[-1], 2.0
    if len(points) > 1:
        before, less = points[-2]
        exponent = max(1.0, math.log(cost / less) / math.log(last / before))
    return cost * (nodes / last) ** exponent


def fill(plan: Plan, rows: Rows, probe: Probe, reached: dict[str, list[int]], say: Say) -> None:
    """Measure every seed of every size reached that is missing, in one shuffled order."""
    todo = [
        (method, nodes, seed)
        for method, sizes in reached.items()
        for nodes in sizes
        for seed in range(plan.seeds)
        if not rows.has(method, nodes, seed)
    ]
    random.Random(_SHUFFLE).shuffle(todo)
    say(f"{len(todo)} measurements to be made")
    told = 0
    for done, (method, nodes, seed) in enumerate(todo, 1):
        try:
            measure(plan, rows, probe, method, nodes, seed)
        except Lost as lost:
            raise Refused(
                f"{method} at N = {nodes:,} {lost}, though its pilot did not: give it less"
                " company on this machine or lower limits, and run again"
            ) from None
        if 10 * done // len(todo) > told:
            told = 10 * done // len(todo)
            say(f"{done} of {len(todo)} measured")


def measure(
    plan: Plan, rows: Rows, probe: Probe, method: str, nodes: int, seed: int
) -> dict[str, Any]:
    """One row, measured and kept."""
    busy = os.getloadavg()[0]
    found = probe.measure(method, nodes, seed, patience=PATIENCE * (plan.seconds + 1) + 10)
    row = {"method": method, "nodes": nodes, "seed": seed, **found}
    row |= {"started": now(), "load": busy, "host": platform.node()}
    rows.add(row)
    return row


# --- the tables


def tables(
    plan: Plan, rows: Rows, reached: dict[str, list[int]], unreached: pd.DataFrame
) -> ScalingTables:
    """What was asked, with claims judged."""
    own = asked(rows, reached, range(plan.seeds))
    return ScalingTables(
        run=manifest(plan),
        rows=own,
        pilots=asked(rows, reached, [PILOT]),
        unreached=unreached,
        claims=decide(plan.scaling.claims, evidence(own)),
    )


def asked(rows: Rows, reached: dict[str, list[int]], seeds: Iterable[int]) -> pd.DataFrame:
    """What has been measured at the sizes reached under these seeds, in order."""
    wanted = {(method, nodes) for method, sizes in reached.items() for nodes in sizes}
    known = rows.known()
    places = zip(known["method"], known["nodes"], strict=True)
    known = known[[place in wanted for place in places]]
    known = known[known["seed"].isin(list(seeds))]
    kinds = {"nodes": int, "seed": int} | dict.fromkeys(QUANTITIES, float)
    return known.astype(kinds).sort_values(["method", "nodes", "seed"], ignore_index=True)


def manifest(plan: Plan) -> dict[str, Any]:
    """Everything that is said of the run beside its numbers."""
    return {
        "study": plan.scaling.name,
        "question": plan.scaling.question,
        "work": plan.scaling.work,
        "methods": {m.name: m.note for m in plan.scaling.methods if m.name in plan.methods},
        "sizes": list(plan.sizes),
        "seeds": plan.seeds,
        "seconds": plan.seconds,
        "clock": clock_of(plan.options.device, plan.options.threads),
        "mib": plan.mib,
        "smoke": plan.options.smoke,
        "options": dataclasses.asdict(plan.options),
        "host": platform.node(),
        **plan.key,
        "command": command_line(),
        "created": now(),
        **git_state(),
        "versions": versions(),
        "out": plan.folder.address,
    }

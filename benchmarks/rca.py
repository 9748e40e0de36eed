"""What recursive cross-modal attention costs: memory and time of one step, method by method.

    python benchmarks/rca.py

Forward and backward of one `mmrec.nn.rca.RCA` of two modalities, each point in a process of its
own. Methods: `dense`, the nodes reading by autograd, which keeps its (N, N) arrays; `tiled`, the
same as the module computes it; `topk`, a graph of K random columns in place of all (drawn before
the clock starts); `features`, the other reading.

Letters in names: N nodes, D width, M columns, E width of values, K columns a row.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmrec.graphs import Graph, incidence
from mmrec.nn import rca
from mmrec.study.memory import resident
from mmrec.study.provenance import hardware, now, versions

METHODS = ("dense", "tiled", "topk", "features")
NODES = (1425, 2000, 4000, 7050, 12000, 23033)
"""Items of lfm2k, between, and of Amazon Baby and Clothing."""
COSTS = ("mib", "seconds", "cpu_seconds")
COLUMNS = 64
FITTED_FROM = 2000
"""Below it two tiles weigh more than all that grows with the nodes."""
REPEAT_SECONDS = 2.0
"""As long the shortest step is looked for."""
TARGET_MIB, TARGET_EXPONENT = 1536, 1.1


def dense(x_ND: Tensor, j_MD: Tensor, v_ME: Tensor) -> Tensor:
    """(N, E) what `correlated` computes, by autograd."""
    return torch.tanh(x_ND @ j_MD.T) @ v_ME


def measured(method: str, nodes: int, dim: int, depth: int, threads: int) -> dict[str, Any]:
    """Peak growth of resident memory in MiB, seconds and CPU seconds of a step, in this process."""
    torch.set_num_threads(threads)
    init = torch.Generator().manual_seed(0)
    model = rca.RCA(
        2,
        dim,
        depth,
        init,
        reading="features" if method == "features" else "nodes",
        shared=True,
        mean=True,
    )
    if method == "dense":
        rca.correlated = dense
    views = [torch.randn(nodes, dim, generator=init).requires_grad_() for _ in range(2)]
    near = random_columns(nodes) if method == "topk" else None
    warm = [view[:600].detach().requires_grad_() for view in views]  # loads code, and little else
    step(model, warm, random_columns(600) if method == "topk" else None)
    (before,) = resident("VmRSS")
    begun = time.perf_counter()
    times = [timed(model, views, near)]
    (peak,) = resident("VmHWM")  # later steps add to the gradients of the first
    while time.perf_counter() - begun < REPEAT_SECONDS:
        times.append(timed(model, views, near))
    seconds, cpu = (round(min(column), 4) for column in zip(*times, strict=True))
    return {"mib": round(peak - before, 1), "seconds": seconds, "cpu_seconds": cpu}


def timed(model: rca.RCA, views: list[Tensor], near: Graph | None) -> tuple[float, float]:
    """Seconds of a step, by the wall and by the processor."""
    start = time.perf_counter(), time.process_time()
    step(model, views, near)
    return time.perf_counter() - start[0], time.process_time() - start[1]


def step(model: rca.RCA, views: list[Tensor], near: Graph | None) -> None:
    """Forward and backward."""
    torch.stack(model(views, near)).square().sum().backward()


def random_columns(nodes: int) -> Graph:
    """(N, N) K columns in each row, or a few less where one is drawn twice."""
    column_NK = np.random.default_rng(0).integers(0, nodes, (nodes, COLUMNS))
    pairs = np.stack([np.arange(nodes).repeat(COLUMNS), column_NK.ravel()], axis=1)
    return incidence(pairs, nodes, nodes)


def apart(method: str, nodes: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """`measured` in a fresh process."""
    options = ("dim", "depth", "threads")
    given = [part for name in options for part in (f"--{name}", str(getattr(arguments, name)))]
    command = [sys.executable, __file__, "--point", method, str(nodes), *given]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        raise RuntimeError(f"{method} of {nodes} nodes ended with {run.returncode}: {run.stderr}")
    return {"method": method, "nodes": nodes, **json.loads(run.stdout)}


def exponent(points: list[dict[str, Any]], column: str) -> float:
    """The slope of a column against the nodes, both as logarithms."""
    fitted = [point for point in points if point["nodes"] >= FITTED_FROM]
    x, y = (np.log([float(point[name]) for point in fitted]) for name in ("nodes", column))
    return float(np.polyfit(x, y, 1)[0])


def swept(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """All points, printed as they come."""
    print(f"{'nodes':>6} {'method':>8} {'MiB':>8} {'s':>8} {'CPU s':>8}   as shares of tiled")
    points = []
    for nodes in arguments.nodes:
        beside = apart("tiled", nodes, arguments)
        for method in METHODS:
            if method == "dense" and nodes > arguments.dense_up_to:
                continue
            point = beside if method == "tiled" else apart(method, nodes, arguments)
            points.append(point)
            shares = "  ".join(f"{point[name] / beside[name]:7.3f}" for name in COSTS)
            costs = f"{point['mib']:8.1f} {point['seconds']:8.3f} {point['cpu_seconds']:8.3f}"
            print(f"{nodes:>6} {method:>8} {costs}   {shares}", flush=True)
    return points


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--nodes", type=int, nargs="+", default=NODES)
    parser.add_argument("--dense-up-to", type=int, default=7050, help="1.5 GiB at 7,050 nodes")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--point", nargs=2, metavar=("METHOD", "NODES"), help="measure one, here")
    arguments = parser.parse_args()
    if arguments.point:
        method, nodes = arguments.point[0], int(arguments.point[1])
        print(
            json.dumps(measured(method, nodes, arguments.dim, arguments.depth, arguments.threads))
        )
        return
    points = swept(arguments)
    exponents = {}
    for method in METHODS:
        own = [point for point in points if point["method"] == method]
        if sum(point["nodes"] >= FITTED_FROM for point in own) >= 2:
            exponents[method] = {name: round(exponent(own, name), 3) for name in COSTS}
    print(f"exponents in the number of nodes, from {FITTED_FROM}: {exponents}")
    largest = max((p for p in points if p["method"] == "tiled"), key=lambda p: p["nodes"])
    print(
        f"tiled at {largest['nodes']} nodes: {largest['mib']} MiB (target {TARGET_MIB}),"
        f" exponent of memory target {TARGET_EXPONENT}"
    )
    result = {
        "date": now(),
        "hardware": hardware(),
        "versions": versions(),
        "threads": arguments.threads,
        "dim": arguments.dim,
        "depth": arguments.depth,
        "points": points,
        "exponents": exponents,
    }
    (arguments.out / "rca.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

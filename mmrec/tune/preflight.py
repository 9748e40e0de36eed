"""The pre-flight: whether every node of a cluster can take part in a study, before any trial runs.

What differs between nodes would be found out hours later, and by its symptoms: numbers of another
version, files that only one disk has. Each node is asked by a task of its own, all at once; what it
answers is compared with the driver, and the table says what is wrong where.
"""

import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mmrec.data.dataset import Dataset
from mmrec.study.database import Refused
from mmrec.study.store import Folder

from mmrec.tune import local  # before ray: it sets the environment  # isort: skip
import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mmrec.tune.findings import ANSWER_SECONDS, Expected, Node, findings, table, warnings
from mmrec.tune.versions import readers, this_node


def require(data: Dataset, folder: Folder, *, gpus: float) -> None:
    """Ask all nodes, and go on only if all of them can take part.

    On a Ray of one's own nothing can differ: there is one node, and it is this process's.

    Args:
        data: the study's dataset; each node digests what the object store gives it.
        folder: the run folder; driver and node each read what the other has written.
        gpus: of a trial; 0 asks for none.

    Raises:
        Refused: some node cannot; the message is a table, one line a node.
    """
    if local.is_private():
        return
    start = time.monotonic()
    nodes = _nodes()
    expected = Expected(this_node(), data.digest, folder.address, gpus)
    facts = _ask(nodes, data, folder, gpus)
    here = {node.id for node in _nodes()}
    asked = [node for node in nodes if node.id in here]  # one that has left needs no check
    wrong = {node.id: findings(expected, node, facts.get(node.id)) for node in asked}
    notes = {node.id: warnings(facts.get(node.id) or {}) for node in asked}
    seconds = time.monotonic() - start
    if any(wrong.values()):
        raise Refused(table(asked, wrong, notes))
    told = ", ".join(f"{name} {version}" for name, version in expected.versions.items())
    sys.stderr.write(f"pre-flight: {len(asked)} node(s) agree ({told}), {seconds:.1f} s\n")
    for node in asked:
        sys.stderr.writelines(f"  {node.name}: {note}\n" for note in notes[node.id])


# --- asking


def _nodes() -> list[Node]:
    """All that are alive, the head first."""
    alive = [node for node in ray.nodes() if node["Alive"]]
    alive.sort(key=lambda node: ("node:__internal_head__" not in node["Resources"], node["NodeID"]))
    names = [f"{node['NodeManagerHostname']} {node['NodeManagerAddress']}" for node in alive]
    count = Counter(names)
    return [
        Node(
            node["NodeID"],
            name if count[name] == 1 else f"{name} {node['NodeID'][:8]}",
            node["Resources"].get("GPU", 0.0),
        )
        for node, name in zip(alive, names, strict=True)
    ]


def _ask(
    nodes: Sequence[Node], data: Dataset, folder: Folder, gpus: float
) -> dict[str, dict[str, Any]]:
    """Node id -> what it answered; those that did not are not there."""
    word = f"preflight-{uuid.uuid4().hex[:12]}"
    probe: Any = ray.remote(num_cpus=0, max_retries=0, max_calls=1)(_probe())
    shared = ray.put(data)
    folder.write(word, word.encode())
    try:
        sent = {}
        for node in nodes:
            there = NodeAffinitySchedulingStrategy(node.id, soft=False)
            asked = probe.options(scheduling_strategy=there).remote(
                [shared], folder.address, word, f"{word}-{node.id}", gpus > 0
            )
            sent[asked] = node.id
        facts = _answers(sent)
        for name, told in facts.items():
            told["returned"] = bool(told.get("storage")) and folder.seen(f"{word}-{name}")
        return facts
    finally:
        for name in (word, *(f"{word}-{node.id}" for node in nodes)):
            folder.remove(name)


def _answers(sent: Mapping[Any, str]) -> dict[str, dict[str, Any]]:
    """What comes back in time, each stamped with how its clock differs from this one's."""
    facts, waiting = {}, list(sent)
    end = time.monotonic() + ANSWER_SECONDS
    while waiting and (left := end - time.monotonic()) > 0:
        ready, waiting = ray.wait(waiting, num_returns=1, timeout=left)
        received = time.time()
        for answer in ready:
            try:
                told = ray.get(answer)
            except RayError as error:
                lines = str(error).strip().splitlines()
                told = {"lost": lines[-1][:300] if lines else type(error).__name__}
            else:
                # Starting a worker takes seconds, an answer's way back a moment: so only the time
                # at which it left is compared, with that at which it came.
                told["skew"] = told["ended"] - received
            facts[sent[answer]] = told
    for late in waiting:
        ray.cancel(late, force=True)
    return facts


def _probe() -> Callable[..., dict[str, Any]]:
    """What runs on a node. Nested, hence pickled by value: the node may have no mmrec at all."""
    versions, checks = readers(), _checks()

    def probe(
        shared: list[Any], address: str, word: str, answer: str, gpus: bool
    ) -> dict[str, Any]:
        import time

        facts: dict[str, Any] = {"errors": {}}
        for name, read in {**versions, **checks(shared, address, word, answer, gpus)}.items():
            try:
                facts[name] = read()
            except Exception as error:  # noqa: BLE001 - of whatever kind, it is what was asked for
                facts["errors"][name] = f"{type(error).__name__}: {error}"
        facts["ended"] = time.time()
        return facts

    return probe


def _checks() -> Callable[..., dict[str, Callable[[], Any]]]:
    """What else is tried on a node; by value like the rest."""

    def checks(
        shared: list[Any], address: str, word: str, answer: str, gpus: bool
    ) -> dict[str, Callable[[], Any]]:
        import os
        import shutil

        def storage() -> bool:
            from mmrec.study.store import Folder

            folder = Folder(address)
            if not folder.seen(word):
                return False  # and nothing is left on a disk of this node's own
            if folder.read(word) != word.encode():
                raise OSError(f"{word} holds something else than what the driver wrote")
            folder.write(answer, answer.encode())
            return True

        def dataset() -> str:
            import dataclasses

            import ray

            data: Any = ray.get(shared[0])
            # A copy, since the digest is kept on the object and has travelled with it.
            return dataclasses.replace(data).digest

        def count_gpus() -> int:
            # Ray may hide them from a task that asks for none; this process ends with the task.
            os.environ.pop("CUDA_VISIBLE_DEVICES", None)
            import torch

            return torch.cuda.device_count()

        def free() -> int | None:
            there = "://" not in address and os.path.isdir(address)  # noqa: PTH112 - stdlib's os is here
            return shutil.disk_usage(address).free if there else None

        made: dict[str, Callable[[], Any]] = {"storage": storage, "dataset": dataset, "free": free}
        return {**made, "gpus": count_gpus} if gpus else made

    return checks

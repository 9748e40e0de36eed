"""Starting Ray, or joining a cluster, with what must be set before Ray is imported.

On one machine nothing may listen beyond it. Ray 2.60 binds its servers to all interfaces unless
the node's address is 127.0.0.1, and resolves a given 127.0.0.1 back to an outside address; the
shim below keeps it from doing so. A test reads the listening sockets.

A cluster may have no room when a study begins, and other nodes when it ends: hence `slots` waits
there, and `Room` counts again and again.
"""

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn
from unittest.mock import patch

from mmrec.training import ALLOCATOR

_ENVIRONMENT = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "AUTOSCALER_EVENTS": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",
    "TUNE_MAX_PENDING_TRIALS_PG": "200",
    "TUNE_RESULT_BUFFER_LENGTH": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_prestart_worker_first_driver": "0",
}
"""Each may be overridden from outside. Tune's own snapshots are never read, so none are taken.

Ray would start one process for each core in advance, and another one for each trial all the same.
"""

for _name, _value in (_ENVIRONMENT | ALLOCATOR).items():
    os.environ.setdefault(_name, _value)

import ray  # noqa: E402
from ray._private import worker as ray_worker  # noqa: E402
from ray._private.services import find_node_ids  # noqa: E402
from ray._raylet import (  # noqa: E402
    AuthenticationMode,  # pyright: ignore[reportAttributeAccessIssue] - compiled
    AuthenticationTokenLoader,  # pyright: ignore[reportAttributeAccessIssue]
    GcsClient,  # pyright: ignore[reportAttributeAccessIssue]
    get_authentication_mode,  # pyright: ignore[reportAttributeAccessIssue]
)
from ray.exceptions import AuthenticationError, RpcError  # noqa: E402
from ray.util import placement_group, remove_placement_group  # noqa: E402

from mmrec.study.database import Refused  # noqa: E402
from mmrec.tune.address import Found, find, require_answer, token_source  # noqa: E402

LOOPBACK = "127.0.0.1"

WAIT_SECONDS = 600.0
"""How long a cluster may take to bring a first node."""


@contextmanager
def started(address: str | None = None) -> Iterator[None]:
    """Ray, for the length of a block: the cluster at `address`, or a private local instance.

    An instance that the caller has started already is used and left running.

    Args:
        address: what was asked for; see `mmrec.tune.address.cluster_address`.

    Raises:
        Refused: a cluster was asked for or found, and it cannot be joined.
    """
    if ray.is_initialized():
        yield
        return
    for name in ("ray", "ray.tune"):
        logging.getLogger(name).setLevel(logging.ERROR)
    found = find(address)
    if found is not None:
        _join(found)
    else:
        with _bound_to_loopback():
            ray.init(
                address="local",
                include_dashboard=False,
                _node_ip_address=LOOPBACK,
                logging_level=logging.ERROR,
                log_to_driver=False,
            )
    try:
        yield
    finally:
        ray.shutdown()


def is_private() -> bool:
    """Whether this process started the Ray that it uses, with one node and for itself alone."""
    node = ray_worker._global_node
    return node is not None and node.is_head()


def _join(found: Found) -> None:
    """Connect to a cluster; what Ray 2.60 would retry for 20 to 60 s is asked first."""
    require_answer(found)
    _require_token(found)
    if not find_node_ids():
        raise found.refused(
            "no node of it runs on this machine, where a driver has to be",
            "Start the study on its head, with `ray submit` or `ray job submit`",
        )
    try:
        ray.init(address=found.address, logging_level=logging.ERROR, log_to_driver=False)
    except (ConnectionError, RuntimeError) as error:
        root = error.__cause__ or error
        why = " ".join(str(root).split())
        fix = "Install the cluster's versions here" if "Version mismatch" in why else "Mend that"
        raise found.refused(why[:500].rstrip("."), fix) from error


def _require_token(found: Found) -> None:
    """Whether the cluster lets this process in; where it asks for no token, any will do."""
    token = get_authentication_mode() == AuthenticationMode.TOKEN
    if token and not AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True):
        raise found.refused(
            f"this process has no token ({token_source()})",
            "Copy that of its head there; if the cluster runs without, set RAY_AUTH_MODE=disabled",
        )
    try:
        GcsClient(address=found.address)
    except AuthenticationError as error:
        sent = f"its token is not the one in {token_source()}"
        none = "it asks for a token, and RAY_AUTH_MODE=disabled sends none"
        fix = "Copy that of its head there" if token else "Unset RAY_AUTH_MODE"
        raise found.refused(sent if token else none, fix) from error
    except RpcError as error:
        why = f"its head does not answer ({str(error).strip().splitlines()[0]})"
        raise found.refused(why, "See whether it is up, with `ray status`") from error


@contextmanager
def _bound_to_loopback() -> Iterator[None]:
    """Keep Ray 2.60 from replacing 127.0.0.1 by the address that the outside sees."""
    with (
        patch("ray._private.services.get_node_ip_address", lambda _address=None: LOOPBACK),
        patch("ray.util.get_node_ip_address", lambda _address=None: LOOPBACK),
    ):
        yield


def slots(cpus: float, gpus: float, *, wait_seconds: float = WAIT_SECONDS) -> int:
    """How many trials fit at once, now. On a cluster, wait until one does.

    An autoscaler may begin with no workers at all: it is shown what is wanted, as a placement
    group that waits. (A call of `request_resources` would outlive this process, and keep a node
    running, if it were killed meanwhile.)

    Raises:
        Refused: not even one does, on a cluster after `wait_seconds`.
    """
    if (fit := _fitting(cpus, gpus)) or is_private():
        return fit or _no_room(cpus, gpus)
    wanted = f"{cpus:g} CPU, {gpus:g} GPU" if gpus else f"{cpus:g} CPU"
    sys.stderr.write(f"waiting for a node with {wanted}, at most {wait_seconds:g} s\n")
    group = placement_group([amounts(cpus, gpus)])
    try:
        end = time.monotonic() + wait_seconds
        while not (fit := _fitting(cpus, gpus)):
            if time.monotonic() > end:
                _no_room(cpus, gpus, f", also after {wait_seconds:g} s of waiting for more")
            time.sleep(min(1.0, wait_seconds / 10))
    finally:
        remove_placement_group(group)
    return fit


def amounts(cpus: float, gpus: float) -> dict[str, float]:
    """What a trial takes, in Ray's words."""
    return {"CPU": cpus, "GPU": gpus} if gpus else {"CPU": cpus}


def fitting_by_node(cpus: float, gpus: float) -> dict[str, int]:
    """Ray's id of each living node -> how many trials fit there, were nothing else running."""
    wanted = amounts(cpus, gpus)
    alive = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}
    return {
        name: min(int(have.get(kind, 0) // n) for kind, n in wanted.items())
        for name, have in alive.items()
    }


def _fitting(cpus: float, gpus: float) -> int:
    return sum(fitting_by_node(cpus, gpus).values())


def _no_room(cpus: float, gpus: float, after: str = "") -> NoReturn:
    have = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    largest = "; ".join(
        sorted({f"{r.get('CPU', 0):g} CPU and {r.get('GPU', 0):g} GPU" for r in have})
    )
    raise Refused(
        f"a trial wants {cpus:g} CPU and {gpus:g} GPU on one node, but Ray has {len(have)} node(s)"
        f" with {largest}{after}"
    )


class Room:
    """How many trials may be under way now, some of them waiting for a node.

    A cluster grows for what waits in vain, and Tune would never ask for more than fitted at the
    start. So half as many again may wait, at least 2: an autoscaler then adds half as many nodes
    a round. More would be a row in the ledger each that only waits, and would start after
    `--max-hours` is over.
    """

    def __init__(self, cpus: float, gpus: float, *, every: float = 2.0) -> None:
        self.cpus, self.gpus, self.every = cpus, gpus, every
        self.private = is_private()
        self._fit, self._counted = 0, float("-inf")

    def __call__(self) -> int:
        """At least 1; counted again every `every` seconds on a cluster, once on a private Ray."""
        now = time.monotonic()
        if now - self._counted >= (float("inf") if self.private else self.every):
            self._fit, self._counted = _fitting(self.cpus, self.gpus), now
        return max(1, self._fit if self.private else with_waiting(self._fit))


def with_waiting(fit: int) -> int:
    """Trials under way where `fit` of them have room; see `Room`."""
    return fit + max(2, fit // 2)

"""Starting Ray, or joining a cluster, with what must be set before Ray is imported.

On one machine nothing may listen beyond it. Ray 2.60 binds its servers to all interfaces unless
the node's address is 127.0.0.1, and resolves a given 127.0.0.1 back to an outside address; the
shim below keeps it from doing so. A test reads the listening sockets.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
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
    "TUNE_RESULT_BUFFER_LENGTH": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
}
"""Each may be overridden from outside. Tune's own snapshots are never read, so none are taken."""

for _name, _value in (_ENVIRONMENT | ALLOCATOR).items():
    os.environ.setdefault(_name, _value)

import ray  # noqa: E402

from mmrec.study.ledger import Refused  # noqa: E402

LOOPBACK = "127.0.0.1"


@contextmanager
def started(address: str | None = None) -> Iterator[None]:
    """Ray, for the length of a block: a private local instance, or the cluster at `address`.

    An instance that the caller has started already is used and left running.

    Raises:
        ConnectionError: nothing answers at `address`.
    """
    if ray.is_initialized():
        yield
        return
    for name in ("ray", "ray.tune"):
        logging.getLogger(name).setLevel(logging.ERROR)
    address = address or os.environ.get("RAY_ADDRESS")
    if address:
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
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


@contextmanager
def _bound_to_loopback() -> Iterator[None]:
    """Keep Ray 2.60 from replacing 127.0.0.1 by the address that the outside sees."""
    with (
        patch("ray._private.services.get_node_ip_address", lambda _address=None: LOOPBACK),
        patch("ray.util.get_node_ip_address", lambda _address=None: LOOPBACK),
    ):
        yield


def slots(cpus: float, gpus: float) -> int:
    """How many trials fit at once.

    Raises:
        Refused: not even one does.
    """
    have = ray.cluster_resources()
    wanted = {"CPU": cpus, "GPU": gpus}
    fits = [int(have.get(kind, 0) // amount) for kind, amount in wanted.items() if amount > 0]
    if not fits or min(fits) < 1:
        raise Refused(
            f"a trial wants {cpus:g} CPU and {gpus:g} GPU, but Ray has"
            f" {have.get('CPU', 0):g} CPU and {have.get('GPU', 0):g} GPU"
        )
    return min(fits)

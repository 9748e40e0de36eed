"""What a local Ray of ours does to the machine."""

import subprocess
import sys

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

LISTENERS = """
import psutil
from mmrec.tune import local
import ray

@ray.remote
def work():
    return 1

with local.started():
    ray.get([work.remote() for _ in range(4)])
    me = psutil.Process()
    sockets = [
        connection.laddr.ip
        for process in [me, *me.children(recursive=True)]
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    print("LISTENING", *sockets)
"""


def test_no_socket_listens_beyond_the_loopback():
    done = subprocess.run(
        [sys.executable, "-c", LISTENERS], capture_output=True, text=True, timeout=100, check=True
    )
    (line,) = (x for x in done.stdout.splitlines() if x.startswith("LISTENING"))
    addresses = line.split()[1:]
    assert len(addresses) >= 4, done.stdout + done.stderr
    assert {a.removeprefix("::ffff:") for a in addresses} <= {"127.0.0.1", "::1"}

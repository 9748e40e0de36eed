"""The README's way over machines of one's own, in the lab: `ray up`, `ray submit`, `ray down`."""

import shlex
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.cluster.lab import HEAD, LAPTOP, ROOT, Lab

FILE = "/run/lab/on-prem.yaml"
CHANGES = {
    "ssh_user: researcher": "ssh_user: root",
    # Each host stands for a machine of one core.
    "ray start --address=$RAY_HEAD_IP:6379": "ray start --address=$RAY_HEAD_IP:6379 --num-cpus=1",
}
"""All that the lab changes in deploy/on-prem.yaml: its addresses and its key are the lab's."""

JOINED = """
import sys, time, ray
ray.init(address="auto", logging_level=40, log_to_driver=False)
while sum(node["Alive"] for node in ray.nodes()) != int(sys.argv[1]):
    time.sleep(0.2)
"""


class OnPrem:
    """A Ray cluster on the hosts of a lab, as its user handles it from the laptop."""

    def __init__(self, lab: Lab) -> None:
        text = (ROOT / "deploy" / "on-prem.yaml").read_text()
        for old, new in CHANGES.items():
            assert text.count(old) >= 1, f"deploy/on-prem.yaml no longer says {old!r}"
            text = text.replace(old, new)
        (lab.folder / "on-prem.yaml").write_text(text)
        (lab.folder / "joined.py").write_text(JOINED)
        self.lab = lab
        self.seconds: dict[str, float] = {}
        """What took how long: the transcript."""

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Note how long a block took."""
        start = time.monotonic()
        yield
        self.seconds[what] = round(time.monotonic() - start, 1)

    def up(self) -> None:
        """`ray up`, which returns when the head is up, and until both workers have joined."""
        with self.timed("ray up, workers joined"):
            with self.timed("ray up"):
                self.lab.run(LAPTOP, "test -e ~/.ray/auth_token || ray get-auth-token --generate")
                self.lab.run(LAPTOP, f"ray up --yes --disable-usage-stats {FILE}", timeout=120)
            self.wait_for_nodes(3)

    def wait_for_nodes(self, count: int, timeout: float = 120) -> None:
        """Until so many nodes are alive, the head among them."""
        line = f"RAY_AUTH_MODE=token python /run/lab/joined.py {count}"
        self.lab.run(HEAD, line, timeout=timeout)

    def submit(self, script: str, *words: str) -> subprocess.Popen[str]:
        """`ray submit` of a study, under way."""
        return self.lab.start(LAPTOP, f"ray submit {FILE} {script} -- {shlex.join(words)}")

    def fetch(self, remote: str, local: str) -> str:
        """`ray rsync-down`: copy a folder of the head into one of the laptop."""
        return self.lab.run(LAPTOP, f"ray rsync-down {FILE} {remote} {local}")

    def down(self) -> None:
        """`ray down`."""
        self.lab.run(LAPTOP, f"ray down --yes {FILE}", timeout=60)

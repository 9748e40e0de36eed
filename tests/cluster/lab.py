"""Three hosts and a laptop on one machine: namespaces of the kernel, an SSH server on each host.

Each host has its own network, processes, host name, home (an overlay of ours), /tmp and /dev/shm;
all see /srv, which stands for NFS. All of them live in one room, namespaces too, whose first
process ends when its standard input does: however the Python that opened the room dies, the kernel
takes everything down, and no name, address or mount is left. Rooms do not see each other.

`python -m tests.cluster.lab` opens a lab and says how to enter it.
"""

import functools
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import psutil

ROOT = Path(__file__).parents[2]
QUOTED_ROOT = shlex.quote(str(ROOT))
HEAD, WORKERS, LAPTOP = "head", ("worker1", "worker2"), "laptop"
ADDRESS = {
    HEAD: "192.0.2.10",
    "worker1": "192.0.2.11",
    "worker2": "192.0.2.12",
    LAPTOP: "192.0.2.1",
}
"""Of the block that documentation uses (RFC 5737): on no real network, and as in on-prem.yaml."""
GATEWAY = "192.0.2.254"

HOME = Path.home()
SHARED = Path("/srv")
"""Where hosts see the shared folder."""
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME": str(HOME)} | {
    "LANG": "C.UTF-8",
    "TERM": "dumb",
}

PROGRAMS = ("ip", "unshare", "nsenter", "sshd", "ssh", "ssh-keygen", "rsync", "mount")

TREE = Path("/run/tree")
"""Where the laptop sees the working tree; hosts do not see it at all."""

ROOM = f"""
mount -t tmpfs tmpfs /run
mkdir -p /run/sshd /run/lab /run/env /run/homes {TREE}
mount --bind {{folder}} /run/lab
mount --bind {{prefix}} /run/env
mount --bind {{root}} {TREE}
mount --bind /run/lab/shared {SHARED}
mount --make-shared {SHARED}
ip link set lo up
ip link add br0 type bridge
ip addr add {GATEWAY}/24 dev br0
ip link set br0 up
echo ready
exec cat
"""

SWITCH_ON = f"""
hostname {{name}}
mount -t tmpfs tmpfs /tmp
chmod 1777 /tmp
mount -t tmpfs tmpfs /dev/shm
layers=/run/homes/{{name}}
mkdir -p $layers/up $layers/work
mount -t overlay overlay -o lowerdir={HOME},upperdir=$layers/up,workdir=$layers/work {HOME}
mount --bind /run/lab/hosts /etc/hosts
mount --bind /run/lab/resolv.conf /etc/resolv.conf
cd {HOME}
if [ ! -e $layers/old ]; then
  touch $layers/old
  rm -rf .ray .ssh .bashrc .bash_profile .bash_login .profile .config/pip mmrec mmrec-env
  echo '. ~/.bashrc' > .profile
  touch .bashrc
  ln -s /run/lab/env mmrec-env
fi
ip link set lo up
"""

HOST = f"""
mount -t tmpfs tmpfs {{root}}
mount -t tmpfs tmpfs {TREE}
{SWITCH_ON}
echo ready
read -r plugged
exec /usr/sbin/sshd -D -e -f /run/lab/sshd_config
"""

LAPTOPS = f"""
{SWITCH_ON}
install -D -m 600 /run/lab/key .ssh/id_ed25519
echo ready
exec cat
"""

SSHD = """
HostKey /run/lab/hostkey
AuthorizedKeysFile /run/lab/key.pub
StrictModes no
PermitRootLogin yes
PasswordAuthentication no
UseDNS no
PidFile none
MaxStartups 100
"""


class LabError(Exception):
    """A command in the lab failed."""


@functools.cache
def why_not() -> str | None:
    """Why there can be no lab here; None where there can."""
    if os.geteuid() != 0:
        return "needs root, for namespaces of the kernel"
    missing = [name for name in PROGRAMS if shutil.which(name, path=ENVIRONMENT["PATH"]) is None]
    if missing:
        return f"needs {', '.join(missing)} (Debian: iproute2 openssh-server rsync)"
    trial = (
        "ip link add lab0 type veth peer name lab1 && mount -t tmpfs tmpfs /srv && cd /srv"
        f" && mkdir up work && mount -t overlay overlay"
        f" -o lowerdir={HOME},upperdir=/srv/up,workdir=/srv/work {HOME}"
    )
    done = subprocess.run(
        [*UNSHARE, "sh", "-c", trial], capture_output=True, text=True, timeout=30, check=False
    )
    if done.returncode:
        return f"no namespaces here: {done.stderr.strip()[:200]}"
    return None


UNSHARE = (
    *("unshare", "--net", "--mount", "--pid", "--uts", "--fork", "--kill-child"),
    *("--mount-proc", "--propagation", "slave"),
)


class Space:
    """A first process in new namespaces; when it dies, so does all that runs in them."""

    def __init__(self, script: str, log: Path, *, within: "Space | None" = None) -> None:
        """Start `sh -e` on a script that says "ready" and then goes on for ever.

        Args:
            within: the space that it is part of.
        """
        enter = within.enter() if within else []
        with log.open("ab") as errors:
            self.process = subprocess.Popen(
                [*enter, *UNSHARE, "sh", "-ec", script],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=ENVIRONMENT,
                start_new_session=True,  # Ctrl-C is for Python, which then ends this in order
            )
        assert self.process.stdout is not None
        if self.process.stdout.readline() != b"ready\n":
            self.end()
            raise LabError(f"namespaces did not come up:\n{log.read_text()[-2000:]}")
        kin = psutil.Process(self.process.pid).children(recursive=True)
        self.pid = next(p.pid for p in kin if _is_first(p.pid))
        """Of the first process, as seen from outside."""

    def enter(self, *spaces: str) -> list[str]:
        """The words before a command that is to run in there, or only in some of its namespaces."""
        kinds = spaces or ("net", "mount", "pid", "uts")
        return ["nsenter", "--target", str(self.pid), *(f"--{kind}" for kind in kinds)]

    def say(self, text: str) -> None:
        """A line for the first process to read."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{text}\n".encode())
        self.process.stdin.flush()

    def end(self) -> None:
        """Kill all that runs in there."""
        if hasattr(self, "pid") and self.process.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()
        self.process.wait(timeout=30)


class Lab:
    """A context in which the hosts are up; `folder` keeps keys, logs and the shared folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.shared = self.folder / "shared"
        self.hosts: dict[str, Space] = {}

    def __enter__(self) -> "Lab":
        self._write_files()
        script = ROOM.format(
            folder=shlex.quote(str(self.folder)), prefix=shlex.quote(sys.prefix), root=QUOTED_ROOT
        )
        self.room = Space(script, self.folder / "room.log")
        try:
            for name in ADDRESS:
                self.revive(name)
        except BaseException:
            self.room.end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for name in list(self.hosts):
            self.kill(name)
        self.room.end()

    def _write_files(self) -> None:
        (self.shared / "faults").mkdir(parents=True)
        for name in ("key", "hostkey"):
            words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.folder / name]
            subprocess.run(words, check=True, timeout=30)
        (self.folder / "sshd_config").write_text(SSHD)
        (self.folder / "resolv.conf").write_text("")
        names = {"127.0.0.1": "localhost"} | {a: name for name, a in ADDRESS.items()}
        lines = [f"{address} {name}\n" for address, name in names.items()]
        (self.folder / "hosts").write_text("".join(lines))
        bake(self.folder / "env")
        shutil.copytree(ROOT / "tests" / "e2e" / "faults", self.folder / "faults")

    # --- power and cables

    def revive(self, name: str) -> None:
        """Switch a host on; its disk is as it was, its memory and /tmp are empty."""
        script = (LAPTOPS if name == LAPTOP else HOST).format(name=name, root=QUOTED_ROOT)
        host = self.hosts[name] = Space(script, self.folder / f"{name}.log", within=self.room)
        # A card keeps its address: the others remember it for a while.
        card = f"02:00:00:00:00:{ADDRESS[name].rpartition('.')[2]:0>2}"
        plug = f"link add {name} type veth peer name eth0 address {card} netns {host.pid}"
        _ip(self.room, *plug.split())
        _ip(self.room, "link", "set", name, "master", "br0", "up")
        _ip(host, "addr", "add", f"{ADDRESS[name]}/24", "dev", "eth0")
        _ip(host, "link", "set", "eth0", "up")
        # Without a default route Ray takes 127.0.0.1 for the address of its node.
        _ip(host, "route", "add", "default", "via", GATEWAY)
        if name != LAPTOP:
            host.say("plugged")

    def kill(self, name: str) -> None:
        """A power cut: all processes of a host are gone at once, and nobody is told."""
        _ip(self.room, "link", "del", name)  # first, or the kernel would say goodbye for them
        self.hosts.pop(name).end()

    def cut(self, name: str) -> None:
        """Pull a host's network cable."""
        _ip(self.room, "link", "set", name, "down")

    def mend(self, name: str) -> None:
        """Plug it in again."""
        _ip(self.room, "link", "set", name, "up")

    def mount(self, name: str, *words: str) -> None:
        """Mount something on /srv/NAME for all hosts: `-t tmpfs -o size=8m`, `-o remount,ro`."""
        (self.shared / name).mkdir(exist_ok=True)
        words = ("mount", *words, *(() if "remount" in " ".join(words) else ("none",)))
        _run([*self.room.enter("mount"), *words, str(SHARED / name)], timeout=30)

    # --- commands

    def start(self, name: str, command: str) -> subprocess.Popen[str]:
        """Start a line of bash on a host, as root at its console."""
        place = TREE if name == LAPTOP else HOME
        line = f"cd {place} && PATH={HOME}/mmrec-env/bin:$PATH && {command}"
        return subprocess.Popen(
            [*self.hosts[name].enter(), "bash", "-c", line],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=ENVIRONMENT,
            start_new_session=True,
        )

    def run(self, name: str, command: str, *, timeout: float = 60) -> str:
        """What a line of bash printed on a host.

        Raises:
            LabError: it failed, or took longer than `timeout` seconds.
        """
        return finish(self.start(name, command), timeout=timeout)


def bake(folder: Path) -> None:
    """An environment as a host has it: packages are those of this Python, mmrec is in ~/mmrec."""
    words = [sys.executable, "-m", "venv", "--without-pip", str(folder)]
    subprocess.run(words, check=True, timeout=60)
    (packages,) = folder.glob("lib/python3*/site-packages")
    ours = Path("/run/env") / packages.relative_to(folder)
    # Of the last folder Python imports sitecustomize.py: trials misbehave as files in /srv say.
    (packages / "lab.pth").write_text(f"{HOME}/mmrec\n{ours}\n/run/lab/faults\n")
    for name, module in {"ray": "ray.scripts.scripts", "mmrec": "mmrec"}.items():
        script = folder / "bin" / name
        script.write_text(f'#!/bin/sh\nexec {HOME}/mmrec-env/bin/python -m {module} "$@"\n')
        script.chmod(0o755)


def finish(process: subprocess.Popen[str], *, code: int = 0, timeout: float = 60) -> str:
    """What a command printed, once it has ended with `code`; it is killed if it does not end.

    Raises:
        LabError: it ended otherwise, or not within `timeout` seconds.
    """
    words = " ".join(map(str, process.args)) if isinstance(process.args, list) else process.args
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        raise LabError(f"{words}\nnot done in {timeout} s; it printed:\n{output}") from None
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    if process.returncode != code:
        raise LabError(f"{words}\nended with {process.returncode}; it printed:\n{output}")
    return output


def _is_first(pid: int) -> bool:
    """Whether a process is number 1 where it lives."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line for line in lines if line.startswith("NSpid:")).split()[-1] == "1"


def _ip(space: Space, *words: str) -> None:
    _run([*space.enter("net"), "ip", *words], timeout=30)


def _run(words: Sequence[str], timeout: float) -> None:
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=timeout, env=ENVIRONMENT, check=False
    )
    if done.returncode:
        raise LabError(f"{' '.join(words)}: {done.stderr.strip()}")


def main() -> None:
    """Open a lab and wait for Ctrl-C."""
    reason = why_not()
    if reason:
        sys.exit(reason)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mmrec-lab-") as folder, Lab(Path(folder)) as lab:
        lines = [f"up after {time.monotonic() - start:.1f} s; the shared folder is {lab.shared}"]
        for name, host in lab.hosts.items():
            lines.append(f"{name:8} {ADDRESS[name]:12} {shlex.join(host.enter())} bash")
        sys.stdout.write("\n".join([*lines, "Ctrl-C takes it down\n"]))
        sys.stdout.flush()
        try:
            signal.pause()
        except KeyboardInterrupt:
            sys.stdout.write("\n")


if __name__ == "__main__":
    main()

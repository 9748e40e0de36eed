"""Which Ray cluster to join, and whether anything answers there. No Ray here.

A study joins the cluster that its machine belongs to without being told: `ray start` and `ray up`
leave the address in a file, and jobs find it in RAY_ADDRESS. A private Ray writes neither.
"""

import os
import socket
from dataclasses import dataclass
from pathlib import Path

from mmrec.study.database import Refused

LOCAL, AUTO = "local", "auto"
ANSWER_SECONDS = 5.0
"""To connect, and once more to be greeted. Ray itself would try for 40 s and more."""

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
"""How an HTTP/2 client begins (RFC 9113, 3.4), an empty SETTINGS frame included."""


@dataclass(frozen=True)
class Found:
    """A cluster's address and who said so."""

    address: str
    """`host:port` of its head (Ray's GCS, 6379 unless told otherwise)."""
    source: str

    def refused(self, why: str, what_to_do: str) -> Refused:
        """An error that says what is wrong with this address, where it is from, and the way out."""
        return Refused(
            f"Ray cluster {self.address} ({self.source}): {why}. {what_to_do}, or train on this"
            " machine alone: --address local"
        )


def cluster_address(asked: str | None) -> str | None:
    """The address of the cluster to join; None: a private Ray on this machine.

    Args:
        asked: what the command line says. `local` means none; `auto`, or nothing, means the one in
            RAY_ADDRESS, else the one that `ray start` began on this machine.

    Raises:
        Refused: it cannot be a cluster's address, or `auto` found none.
    """
    found = find(asked)
    return None if found is None else found.address


def find(asked: str | None) -> Found | None:
    """As `cluster_address`, with where it was found."""
    named = ((asked, "from --address"), (os.environ.get("RAY_ADDRESS"), "from RAY_ADDRESS"))
    for address, source in named:
        if address == LOCAL:
            return None
        if address and address != AUTO:
            found = Found(address, source)
            _parts(found)
            return found
    file = current_cluster_file()
    address = file.read_text().strip() if file.is_file() else ""
    if address:
        found = Found(address, f"from {file}, which `ray start` wrote")
        _parts(found)
        return found
    if AUTO in (address for address, _ in named):
        raise Refused(
            f"--address {AUTO}: no Ray cluster was started on this machine (no {file}). Give its"
            " address, or train on this machine alone: --address local"
        )
    return None


def current_cluster_file() -> Path:
    """Where `ray start` leaves its address: in Ray's temporary folder, as Ray 2.60 finds it."""
    top = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    return Path(top) / "ray" / "ray_current_cluster"


def token_source() -> str:
    """Where Ray looks for the token of this process: the first of three that is set."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return "RAY_AUTH_TOKEN"
    file = os.environ.get("RAY_AUTH_TOKEN_PATH")
    return f"{file}, by RAY_AUTH_TOKEN_PATH" if file else str(Path.home() / ".ray" / "auth_token")


def require_answer(found: Found) -> None:
    """Knock at a cluster's door.

    Raises:
        Refused: nothing answers there, or something that is not Ray.
    """
    start_anew = "Start it (`ray up`, `ray start --head`)"
    if found.source.startswith("from /"):
        start_anew += ", or forget it with `ray stop`, if it is gone"
    try:
        greeting = _greeting(*_parts(found))
    except ConnectionError as error:  # refused, or hung up on
        raise found.refused(f"nothing answers there ({error})", start_anew) from error
    except TimeoutError as error:
        silent = f"nothing answers there within {ANSWER_SECONDS:.0f} s"
        raise found.refused(silent, start_anew) from error
    except OSError as error:  # no such host, no route to it
        raise found.refused(f"it cannot be reached ({error})", "Correct the address") from error
    if os.environ.get("RAY_USE_TLS", "0") == "0" and greeting[3:4] != b"\x04":
        other = "what listens there is not Ray's head (its port is 6379 unless told otherwise)"
        raise found.refused(other, "Correct the address")


def _greeting(host: str, port: int) -> bytes:
    """The first frame's head that an HTTP/2 server, such as Ray's head, sends: its SETTINGS."""
    with socket.create_connection((host, port), timeout=ANSWER_SECONDS) as line:
        if os.environ.get("RAY_USE_TLS", "0") != "0":
            return b""  # it would begin otherwise
        line.sendall(_PREFACE)
        return line.recv(9)


def _parts(found: Found) -> tuple[str, int]:
    """Host and port.

    Raises:
        Refused: it is no cluster's address.
    """
    scheme, has_scheme, _ = found.address.partition("://")
    if scheme == "ray" and has_scheme:
        raise found.refused(
            "Ray's client would run the study in a process that it cannot follow",
            "Start the study on the head, with `ray submit` or `ray job submit`",
        )
    if has_scheme:
        raise found.refused(
            f"{scheme}:// is an address for `ray job submit`, not of the cluster",
            "Give host:port of its head",
        )
    host, _, port = found.address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise found.refused("an address is host:port", "Correct it")
    return host, int(port)

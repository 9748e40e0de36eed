"""Where a result came from: code, packages, hardware, command."""

import datetime
import functools
import hashlib
import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

PACKAGES = (
    "mmrec", "torch", "ray", "optuna", "numpy", "scipy", "pandas", "plotly", "pydantic", "pyarrow",
    "scikit-learn",
)  # fmt: skip


def versions() -> dict[str, str]:
    """Python and the packages that a result may depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        found[package] = importlib.metadata.version(package)
    return found


@functools.cache
def code_digest() -> str:
    """12 hex digits of all `.py` files of this package: their paths in it and their content.

    Read once a process, so that it tells what was imported, not what was edited since.
    """
    root, sha = Path(__file__).parents[1], hashlib.sha256()
    names = {path.relative_to(root).as_posix(): path for path in root.rglob("*.py")}
    for name, path in sorted(names.items()):
        content = path.read_bytes()
        sha.update(f"{name} {len(content)}\n".encode() + content)
    return sha.hexdigest()[:12]


@functools.cache
def hardware() -> str:
    """This machine in a line: processor, cores, GPU."""
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{_processor()}, {os.cpu_count()} cores{gpu}"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def git_state() -> dict[str, Any]:
    """Commit of the working tree that mmrec is run from, and whether it has been changed since."""
    root = Path(__file__).parents[2]
    commit = _git(root, "rev-parse", "HEAD")
    dirty = _git(root, "status", "--porcelain", "--untracked-files=no") if commit else None
    return {"git_commit": commit, "git_dirty": bool(dirty)}


def _git(root: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None  # an installed package has no working tree: said as None in the report
    return done.stdout.strip()


def command_line() -> str:
    """What was typed, as it can be typed again; values that look like a password are left out."""
    from mmrec.study.database import without_password

    script = Path(sys.argv[0])  # as typed; of an absolute path, which is this machine's, the name
    words = [script.name if script.is_absolute() else str(script), *sys.argv[1:]]
    words = ["python", *words] if script.suffix == ".py" else words
    return shlex.join(without_password(word) for word in words)


def now() -> str:
    """UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")

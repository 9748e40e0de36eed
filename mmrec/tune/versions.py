"""What a node runs on, told by itself. No Ray here, and little to load: every worker does."""

from collections.abc import Callable


def this_node() -> dict[str, str]:
    """Python (minor), Ray, torch (without its build), mmrec and its code, of this process.

    A head without GPUs may have torch for the processor where workers have CUDA's; each row of the
    ledger says which it was.
    """
    return {name: read() for name, read in readers().items()}


def readers() -> dict[str, Callable[[], str]]:
    """How to tell each version. Nested, since they travel to nodes that have no mmrec."""

    def python() -> str:
        import sys

        return f"{sys.version_info.major}.{sys.version_info.minor}"

    def ray() -> str:
        import ray

        return ray.__version__

    def torch() -> str:
        import torch

        return torch.__version__.partition("+")[0]

    def mmrec() -> str:
        import importlib.metadata

        return importlib.metadata.version("mmrec")

    def code() -> str:
        from mmrec.study.provenance import code_digest

        return code_digest()

    return {"python": python, "ray": ray, "torch": torch, "mmrec": mmrec, "code": code}

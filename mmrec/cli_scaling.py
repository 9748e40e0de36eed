"""The command line of studies that measure how costs grow; see `mmrec.study.scaling`."""

import argparse
import sys
from collections.abc import Sequence

from mmrec.cli import DONE, INTERRUPTED, WRONG_WISH, Parser, refuse, words_of
from mmrec.study.scaling import Scaling


def main_scaling(scaling: Scaling, argv: Sequence[str] | None = None) -> int:
    """Measure a scaling study as its command line says; the exit code, as of `main`."""
    from mmrec.reports.scaling import publish
    from mmrec.study.measuring import Options, Plan, run

    try:
        plan = Plan.of(scaling, Options(**vars(scaling_parser(scaling).parse_args(argv))))
        tables = run(plan, say=lambda words: print(words, file=sys.stderr, flush=True))
    except WRONG_WISH as error:
        return refuse(error)
    except KeyboardInterrupt:
        print("\ninterrupted: the same command goes on from here", file=sys.stderr)
        return INTERRUPTED
    print(f"\n{tables.answer}\nreport: {publish(tables, plan.folder)}")
    return DONE


def scaling_parser(scaling: Scaling) -> argparse.ArgumentParser:
    """The command line of a scaling study's script."""
    names = [method.name for method in scaling.methods]
    sizes = f"{scaling.sizes[0]} doubled up to {scaling.sizes[-1]}"
    parser = Parser(
        prog=f"python studies/{scaling.name}.py",
        description=f"{scaling.question} Running the same command again does only what is missing.",
    )
    what = parser.add_argument_group("what to measure")
    what.add_argument(
        "--sizes",
        type=_sizes,
        default=(),
        metavar="N,N",
        help=f"numbers of nodes (default {sizes})",
    )
    what.add_argument(
        "--methods",
        type=lambda text: words_of(text, names),
        default=(),
        metavar="A,B",
        help=f"some of: {', '.join(names)} (default all)",
    )
    what.add_argument(
        "--seeds", type=int, metavar="N", help=f"replicates (default {scaling.seeds})"
    )
    what.add_argument("--smoke", action="store_true", help="a few small sizes: no verdicts meant")
    limits = parser.add_argument_group("how far to go")
    limits.add_argument(
        "--seconds", type=float, metavar="S", help=f"longest step (default {scaling.seconds:g})"
    )
    limits.add_argument(
        "--memory-gib",
        type=float,
        metavar="G",
        help="most memory of a step (default: 60 %% of what is free)",
    )
    where = parser.add_argument_group("where to measure, and where to keep it")
    where.add_argument("--threads", type=int, default=1, metavar="T", help="default 1")
    where.add_argument("--device", default="cpu", help="cpu or cuda (default cpu)")
    where.add_argument(
        "--out", default="runs", metavar="DIR", help="run folders (default runs; a local folder)"
    )
    where.add_argument(
        "--fresh", action="store_true", help="move old measurements aside (default: keep them)"
    )
    return parser


def _sizes(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"takes whole numbers, as 1000,2000, not {text!r}"
        ) from None

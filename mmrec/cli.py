"""The command line of every study script, and the `mmrec` command."""

import argparse
import difflib
import importlib.util
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError

from mmrec.study.database import Refused, usual_storage, without_password
from mmrec.study.store import StorageFailed
from mmrec.study.study import Study
from mmrec.tune.job import Job, Options

DONE, FAILED, USAGE, STORAGE, INTERRUPTED = 0, 1, 2, 3, 130
"""Exit codes."""

WRONG_WISH = (KeyError, ValueError, FileNotFoundError, Refused)
"""What a wrong option raises while a study is laid out; its message is enough. Once trials run,
only `Refused` is expected: all else is a fault and shows its trace."""


def main(study: Study, argv: Sequence[str] | None = None) -> int:
    """Run a study as its command line says; the exit code.

    0: done; 1: some trials failed; 2: bad usage; 3: storage failed; 130: interrupted. After 3 and
    130 the same command goes on.
    """
    arguments = vars(study_parser(study).parse_args(argv))
    dry_run = arguments.pop("dry_run")
    arguments["choices"] = {c.name: arguments.pop(c.name) for c in study.choices}
    try:
        arguments["changes"] = dict(_change(text) for text in arguments["changes"])
        job = Job(study, Options(**arguments))
    except WRONG_WISH as error:
        return refuse(error)
    try:
        return _forecast(job) if dry_run else _run(job)
    except Refused as error:
        return refuse(error)
    except StorageFailed as error:
        refuse(error)
        return STORAGE


def _forecast(job: Job) -> int:
    from mmrec.tune.forecast import forecast

    print(forecast(job))
    return DONE


def _run(job: Job) -> int:
    from mmrec.tune.driver import run_study

    outcome = run_study(job)
    if outcome.interrupted:
        print(f"interrupted; what is done so far: {outcome.report}", file=sys.stderr)
        return INTERRUPTED
    print(f"\n{outcome.answer}\nreport: {outcome.report}")
    if outcome.failed:
        print(f"{outcome.failed} trial(s) failed; the report says which", file=sys.stderr)
        return FAILED
    return DONE


def study_parser(study: Study) -> argparse.ArgumentParser:
    """The command line of a study's script."""
    parser = Parser(
        prog=f"python studies/{study.name}.py",
        description=f"{study.question} Running the same command again does only what is missing.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=_factors_text(study),
    )
    _data_arguments(parser, study.split).add_argument(
        "--dataset",
        default=study.dataset,
        metavar="NAME|PATH",
        help=f"a known dataset or a folder (default {study.dataset}; `mmrec data` lists)",
    )
    what = parser.add_argument_group("what to run")
    what.add_argument("--grid", default="default", choices=study.grid_names, help="which levels")
    what.add_argument(
        "--search",
        action="store_true",
        help="Optuna's TPE with ASHA instead of the grid, then the best cells under all seeds",
    )
    what.add_argument("--seeds", type=int, metavar="N", help=f"replicates (default {study.seeds})")
    what.add_argument(
        "--epochs", type=int, metavar="N", help=f"cap a trial (default {study.base.train.epochs})"
    )
    if study.presets:
        names = ", ".join(study.presets)
        what.add_argument("--preset", metavar="NAME", help=f"values set together: {names}")
    what.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="PATH=JSON",
        dest="changes",
        help="a config value, such as model.dim=128; a factor takes a list of levels;"
        " may be repeated",
    )
    what.add_argument(
        "--smoke", action="store_true", help="a shrunken run of the same code: no verdicts meant"
    )
    what.add_argument(
        "--dry-run",
        action="store_true",
        help="print cells, trials and a time forecast from a short pilot",
    )
    if study.choices or study.tuning:
        _own_arguments(parser, study)
    budget = parser.add_argument_group("budget")
    budget.add_argument(
        "--max-trials",
        type=int,
        metavar="N",
        help="grid: start at most N trials now; search: N suggestions in all",
    )
    budget.add_argument("--max-hours", type=float, metavar="H", help="start no trial after H hours")
    budget.add_argument(
        "--stall-minutes",
        type=float,
        metavar="M",
        default=60.0,
        help="end a worker that ends no epoch for M minutes, and try its trial again"
        " (default 60; 0: never)",
    )
    where = parser.add_argument_group("where to run, and where to keep it")
    where.add_argument(
        "--out",
        default="runs",
        metavar="DIR",
        help="run folders (default runs; a URI needs --storage)",
    )
    where.add_argument(
        "--storage",
        metavar="URL",
        default=usual_storage(),
        help="ledger database, sqlite:///... or postgresql://... (default: $MMREC_STORAGE, or"
        " SQLite in the run folder)",
    )
    where.add_argument(
        "--fresh", action="store_true", help="move the old run aside (default: go on with it)"
    )
    where.add_argument(
        "--address",
        metavar="HOST:PORT",
        help="a Ray cluster (default: the one that this machine belongs to, else this machine"
        " alone; `local` for this machine)",
    )
    where.add_argument(
        "--cpus-per-trial", type=float, metavar="N", help="default: the config's train.threads"
    )
    where.add_argument(
        "--gpus-per-trial",
        type=float,
        metavar="N",
        default=0.0,
        help="more than 0 trains on GPUs; use 1/n (default 0)",
    )
    return parser


def _own_arguments(parser: argparse.ArgumentParser, study: Study) -> None:
    own = parser.add_argument_group("what this study compares")
    for choice in study.choices:
        own.add_argument(
            f"--{choice.name}",
            dest=choice.name,
            type=lambda text, choice=choice: words_of(text, choice.allowed),
            default=choice.default,
            metavar="A,B",
            help=f"{choice.help} (default {','.join(choice.default) or 'what the data has'})",
        )
    if study.tuning:
        own.add_argument(
            "--tune",
            type=int,
            metavar="N",
            help="validation trials for the nuisance knobs of each arm, 0 for none"
            f" (default {study.tuning.trials})",
        )
        own.add_argument(
            "--tune-each", action="store_true", help="tune under every condition by itself"
        )


def words_of(text: str, allowed: Sequence[str]) -> tuple[str, ...]:
    """The words of `a,b`, each once, for argparse; one that is not allowed is refused."""
    words = tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    for word in words:
        if allowed and word not in allowed:
            near = difflib.get_close_matches(word, allowed, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(allowed)}"
            raise argparse.ArgumentTypeError(f"{word!r} is unknown; {hint}")
    return words


def _data_arguments(
    parser: argparse.ArgumentParser, split: str | None = None
) -> argparse._ArgumentGroup:
    """Where a dataset lies and how it is split: all but its name; `split` is the default."""
    usual = split or "the dataset's own"
    data = parser.add_argument_group("data")
    data.add_argument(
        "--data-root",
        type=Path,
        metavar="DIR",
        help="where the datasets lie (default: $MMREC_DATA)",
    )
    data.add_argument(
        "--split",
        default=split,
        help=f"given, random, leave-one-out, cold-item or cold-user (default: {usual})",
    )
    data.add_argument(
        "--protocol",
        help="full, mmrec or split-items: what is hidden and what"
        " competes (default full; split-items for cold items)",
    )
    data.add_argument(
        "--k-core",
        type=int,
        default=0,
        metavar="K",
        help="keep users and items with K interactions or more",
    )
    data.add_argument(
        "--scale",
        default="auto",
        choices=("auto", "standard", "none"),
        help="dense features: standardise the unscaled ones, all, or none",
    )
    return data


def _factors_text(study: Study) -> str:
    lines = ["factors:"]
    for factor in study.factors:
        levels = ", ".join(map(str, factor.levels))
        lines.append(f"  {factor.path}: {levels}")
        if factor.search:
            lines.append(f"    searched in {factor.search.low:g} .. {factor.search.high:g}")
    return "\n".join(lines)


def _change(text: str) -> tuple[str, Any]:
    path, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--set wants PATH=JSON, such as model.dim=128, not {text!r}")
    try:
        return path, json.loads(value)
    except json.JSONDecodeError:
        return path, value  # a bare word is a string: --set train.optimizer=adamw


def refuse(error: Exception) -> int:
    """Say what is wrong with a wish; the exit code."""
    if isinstance(error, ValidationError):
        lines = [
            f"{'.'.join(map(str, e['loc']))}: {e['msg']}, got {e['input']!r}"
            for e in error.errors()
        ]
        text = f"{error.title}: " + "; ".join(lines)
    else:
        text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    print(f"error: {text}", file=sys.stderr)
    return USAGE


class Parser(argparse.ArgumentParser):
    """argparse, with the nearest flag named when one is unknown; no abbreviations."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        _, unrecognized, words = message.partition("unrecognized arguments: ")
        unknown = words.split(" ")[0].split("=")[0]
        near = difflib.get_close_matches(unknown, self._flags(), n=1) if unrecognized else []
        message = without_password(message)
        super().error(f"{message}; did you mean {near[0]}?" if near else message)

    def _flags(self) -> list[str]:
        """Those of the commands too: what a command does not know comes back to this parser."""
        commands = (a for a in self._actions if isinstance(a, argparse._SubParsersAction))
        parsers = [self, *(p for action in commands for p in action.choices.values())]
        return [flag for parser in parsers for flag in parser._option_string_actions]


# --- the `mmrec` command


def mmrec_command(argv: Sequence[str] | None = None) -> int:
    """`mmrec data | report | rerun | dashboard`; the exit code, as of `main`."""
    arguments = mmrec_parser().parse_args(argv)
    do: Callable[[argparse.Namespace], int] = arguments.do
    try:
        return do(arguments)
    except WRONG_WISH as error:
        return refuse(error)
    except StorageFailed as error:
        refuse(error)
        return STORAGE


def mmrec_parser() -> argparse.ArgumentParser:
    """The command line of `mmrec`."""
    parser = Parser(
        prog="mmrec", description="Look at data and runs, rebuild reports, repeat trials."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    data = commands.add_parser("data", help="list the datasets, or describe one")
    data.add_argument(
        "dataset", nargs="?", default="", metavar="NAME|PATH", help="describe this one"
    )
    _data_arguments(data)
    data.set_defaults(do=_show_data)
    report = commands.add_parser("report", help="rebuild a report; nothing is trained")
    report.add_argument("run", help="a run folder, as printed by the study")
    report.add_argument("--kind", default="grid", choices=("grid", "search"))
    report.add_argument(
        "--to", type=Path, metavar="DIR", help="write it there; the run folder is only read"
    )
    report.set_defaults(do=_report)
    rerun = commands.add_parser("rerun", help="repeat one trial and compare its numbers")
    rerun.add_argument("run", help="a run folder, as printed by the study")
    rerun.add_argument("trial", help="the trial's hash, or its first digits")
    rerun.add_argument("--data-root", type=Path, metavar="DIR", help="default: $MMREC_DATA")
    rerun.add_argument(
        "--tolerance",
        type=float,
        default=1e-6,
        help="greatest relative difference that passes (default 1e-6)",
    )
    rerun.set_defaults(do=_rerun)
    dashboard = commands.add_parser(
        "dashboard",
        help="browse a ledger with optuna-dashboard, on this machine; nothing is changed",
    )
    dashboard.add_argument("run", help="a run folder, as printed by the study")
    dashboard.add_argument(
        "--port",
        type=int,
        default=8080,
        metavar="P",
        help="of 127.0.0.1; 0 takes any (default 8080)",
    )
    dashboard.set_defaults(do=_dashboard)
    for command in (report, rerun, dashboard):
        command.add_argument(
            "--storage", metavar="URL", help="default: where the run has it, or $MMREC_STORAGE"
        )
    report.add_argument("--study", type=Path, metavar="FILE", help="default: studies/<name>.py")
    return parser


def _show_data(arguments: argparse.Namespace) -> int:
    from mmrec.data.features import described
    from mmrec.data.sources import available, load

    if not arguments.dataset:
        found = available(arguments.data_root)
        width = max(map(len, found))
        for name, text in found.items():
            print(f"{name:{width}} {text}")
        return DONE
    data = load(
        arguments.dataset,
        data_root=arguments.data_root,
        split=arguments.split,
        k_core=arguments.k_core,
        scale=arguments.scale,
    )
    parts = ", ".join(f"{len(data.part(p))} {p}" for p in ("train", "valid", "test"))
    print(f"{data.name} {data.digest}: {data.num_users} users, {data.num_items} items, {parts}")
    print(f"split: {data.split}")
    for side, features in (("item", data.features), ("user", data.user_features)):
        print(f"{side} features:{'' if features else ' none'}")
        for name, feature in features.items():
            print(f"  {name}: {described(feature)}")
    for note in data.notes:
        print(f"note: {note}")
    return DONE


def _report(arguments: argparse.Namespace) -> int:
    from mmrec.tune.again import rebuild_report

    folder = arguments.run
    study = load_study(arguments.study or _script_of(folder))
    tables, page = rebuild_report(study, folder, arguments.kind, arguments.storage, arguments.to)
    print(f"{tables.answer}\nreport: {page}")
    return DONE


def _rerun(arguments: argparse.Namespace) -> int:
    from mmrec.tune.again import repeat_trial

    table = repeat_trial(arguments.run, arguments.trial, arguments.storage, arguments.data_root)
    print(table.to_string(index=False))
    worst = float(table["relative"].max())
    same = worst <= arguments.tolerance
    words = "the same within" if same else "NOT the same within"
    print(f"{words} {arguments.tolerance:g}: the greatest relative difference is {worst:.2g}")
    return DONE if same else FAILED


def _dashboard(arguments: argparse.Namespace) -> int:
    from mmrec.cli_dashboard import serve
    from mmrec.tune.again import ledger_of

    serve(ledger_of(arguments.run, arguments.storage).storage, arguments.port)
    return DONE


def load_study(path: Path) -> Study:
    """The `STUDY` of a study script."""
    if not path.is_file():
        raise FileNotFoundError(f"no study script {path}: give --study FILE")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "STUDY"):
        raise ValueError(f"{path} declares no STUDY: run it again to write its report anew")
    return module.STUDY


def _script_of(run: str) -> Path:
    """`studies/<name>.py` here or beside the package; the run folder says only the name."""
    from mmrec.study.store import Folder

    folder = Folder.at(run)
    if not folder.exists("run.json"):
        raise FileNotFoundError(f"{folder.address} is not a run folder: it has no run.json")
    name = json.loads(folder.read("run.json"))["study"]
    file = Path("studies") / f"{Path(name).name}.py"
    beside = Path(__file__).parents[1] / file
    return beside if beside.is_file() and not file.is_file() else file

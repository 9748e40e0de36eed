"""The README's commands are true: what it says to type is parsed or run by tests, or by .ci/run."""

import re
import runpy
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from mmrec.cli import load_study, mmrec_parser, study_parser
from mmrec.study.study import Asked

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
COMMANDS = [
    line.partition("#")[0].strip()
    for block in BLOCKS
    for line in block.splitlines()
    if line.partition("#")[0].strip()
]

MODALITIES = {
    "instruments": (),
    "lfm2k": ("tagtext", "text", "vggish", "whisper"),
    "ml-1m": ("text", "title"),
    "planted": ("image", "text"),
    "planted-diverse": ("image", "text"),
    "planted-encoders": ("image", "image_b", "text", "text_b"),
    "planted-five": ("audio", "image", "text"),
    "planted-sequences": ("image", "text"),
    "planted-sequences-text": ("image", "text"),
}
"""Dense ones of the items."""
MORE = {
    "lfm2k": (("tags",), ()),
    "ml-1m": (("genres",), ("age", "gender", "occupation")),
    "planted-five": (("genres",), ("age", "gender", "occupation")),
}
"""Others of the items, and those of the users."""


SCALING = "python studies/rca_scaling.py"
SUBMITTED = re.compile(r"ray submit (\S+\.yaml) (studies/\S+) -- ")
STUDIES = [
    SUBMITTED.sub(r"python \2 ", c)
    for c in COMMANDS
    if (c.startswith("python studies/") and not c.startswith(SCALING)) or SUBMITTED.match(c)
]


@pytest.mark.parametrize("line", STUDIES)
def test_a_study_takes_the_flags_that_the_readme_shows(line):
    _, script, *flags = shlex.split(line)
    study = load_study(ROOT / script)
    arguments = vars(study_parser(study).parse_args(flags))
    modalities = MODALITIES[arguments["dataset"]]
    chosen = {choice.name: arguments[choice.name] for choice in study.choices}
    others, users = MORE.get(arguments["dataset"], ((), ()))
    asked = Asked(
        arguments["dataset"], modalities, chosen, tuple(sorted((*modalities, *others))), users
    )
    split = arguments["split"]
    assert study.on(replace(asked, split=split) if split else asked).cells()


@pytest.mark.parametrize("line", [c for c in COMMANDS if c.startswith(SCALING)])
def test_a_scaling_study_takes_the_flags_that_the_readme_shows(line):
    _, script, *flags = shlex.split(line)
    parser = runpy.run_path(str(ROOT / script))["parser"]()
    found = vars(parser.parse_args(flags))
    changed = {name for name, value in found.items() if value != parser.get_default(name)}
    assert changed == {flag.removeprefix("--") for flag in flags if flag.startswith("--")}


@pytest.mark.parametrize("line", [c for c in COMMANDS if c.startswith("make ")])
def test_a_make_target_of_the_readme_is_there_and_ci_runs_it_or_a_larger_one(line):
    target = line.split()[1]
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)
    larger = {"unit": "test"}.get(target, target)
    assert f"make {larger}" in (ROOT / ".ci/run").read_text()


def test_nothing_else_is_told_to_be_typed():
    known = ("python studies/", "make ", "mmrec ", "ray ", "export MMREC_DATA=")
    assert [c for c in COMMANDS if not c.startswith(known)] == []


RAY = [c for c in COMMANDS if c.startswith("ray ")]


@pytest.mark.slow  # importing Ray's command line takes seconds
@pytest.mark.parametrize("line", RAY)
def test_ray_takes_the_commands_that_the_readme_shows(line):
    # tests/cluster runs them on deploy/on-prem.yaml.
    from ray.scripts.scripts import cli

    _, command, *words = shlex.split(line)
    cli.commands[command].make_context(command, words, resilient_parsing=False)
    for word in words:
        if word.endswith((".yaml", ".py")):
            assert (ROOT / word).is_file()


@pytest.mark.parametrize("line", [c for c in COMMANDS if c.startswith("mmrec ")])
def test_mmrec_takes_the_arguments_that_the_readme_shows(line):
    # tests/e2e runs report and rerun, tests/test_cli.py data, tests/test_dashboard.py dashboard.
    _, command, *words = shlex.split(line)
    found = vars(mmrec_parser().parse_args([command, *words]))
    assert command in found["do"].__name__
    told = {word for word in words if not word.startswith("--")}
    assert told <= {str(value) for value in found.values()}

"""The README's table of models, from their cards and from what `benchmarks/epoch.py` measured.

    python benchmarks/model_table.py

rewrites the README between its two `models` markers. Run it when a model, a card or a measurement
is new; `tests/test_model_table.py` fails until then.
"""

import json
from pathlib import Path

from mmrec.models import all_models
from mmrec.models.base import ModelConfig

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
MEASURED = ROOT / "benchmarks" / "results" / "epoch"
START, END = "<!-- models -->\n", "<!-- /models -->\n"
HEADER = (
    "model",
    "year",
    "idea",
    "item modalities",
    "what the released code gets wrong",
    "s an epoch",
)


def model_table(measured: Path = MEASURED) -> str:
    """Markdown, one row a model, by year."""
    models = sorted(all_models(), key=lambda model: (model.CARD.year, model.CARD.name.lower()))
    rows = [HEADER, ("---",) * len(HEADER), *(row_of(model, measured) for model in models)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def row_of(model: type[ModelConfig], measured: Path) -> tuple[str, ...]:
    """The cells of one model."""
    card = model.CARD
    file = model.__module__.replace(".", "/")
    texts = (card.idea, card.modalities, card.faults)
    cells = (f"[{card.name}]({file}.py)", str(card.year), *texts, seconds_of(model, measured))
    return tuple(cell.replace("|", r"\|") for cell in cells)


def seconds_of(model: type[ModelConfig], measured: Path) -> str:
    """Median seconds of a training epoch; beside it, with feature tables frozen."""
    if model.closed_form:
        return "no epochs"
    path = measured / f"{model.__name__}.json"
    if not path.exists():
        return "not measured"
    record = json.loads(path.read_text(encoding="utf-8"))
    seconds, frozen = record["train_seconds"], record["train_seconds_frozen"]
    return f"{seconds:.2f}" + (f" (frozen {frozen:.2f})" if frozen is not None else "")


def section(text: str) -> tuple[str, str, str]:
    """What stands before, between and after the markers.

    Raises:
        ValueError: the text has not one pair of markers, each on a line of its own.
    """
    before, start, rest = text.partition(START)
    inside, end, after = rest.partition(END)
    if not (start and end) or START in after or END in after:
        raise ValueError(f"the text needs one {START.strip()} and, below it, one {END.strip()}")
    return before, inside, after


def main() -> None:
    before, _, after = section(README.read_text(encoding="utf-8"))
    README.write_text(before + START + model_table() + END + after, encoding="utf-8")


if __name__ == "__main__":
    main()

"""Small pieces of HTML: escaped names, inert JSON, tables."""

import html
import json
import math
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from mmrec.study import text

LONGEST = 60
"""Letters of a name in a figure."""
MOST_ROWS = 200
"""Rows of a table that the page itself shows; the CSV beside it has all of them."""


def esc(value: Any) -> str:
    """Safe inside HTML text and inside quoted attributes."""
    return html.escape(str(value), quote=True)


def drawn(value: Any) -> str:
    """Safe in a figure, whose text plotly reads as a small dialect of HTML; long names are cut.

    Quotes stay as they are: plotly would show `&quot;` letter by letter.
    """
    words = str(value)
    return html.escape(words if len(words) <= LONGEST else f"{words[: LONGEST - 1]}…", quote=False)


def broken(value: Any, width: int = 16) -> str:
    """As `drawn`, over several lines of about `width` letters, for headings of narrow columns."""
    return "<br>".join(drawn(line) for line in textwrap.wrap(str(value), width) or [""])


def inert(value: str, name: str) -> str:
    """JSON text as a data block of the page. Neither `</script>` nor `<!--` can occur in it."""
    safe = value.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
    return f'<script type="application/json" id="{esc(name)}-data">{safe}</script>'


def plain(value: Any) -> Any:
    """A cell of a table as a JSON value: numpy unwrapped; NaN and infinities are null."""
    if hasattr(value, "item"):
        value = value.item()
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return value if isinstance(value, bool | int | float) else str(value)


def columns(table: pd.DataFrame) -> list[list[Any]]:
    """The columns of a table as JSON values."""
    return [[plain(value) for value in table[name].tolist()] for name in table]


def is_number(column: pd.Series) -> bool:
    """Whether a column is shown flush right."""
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)


def html_table(table: pd.DataFrame, shown: Sequence[str] | None = None) -> str:
    """A table with numbers flush right; rows beyond `MOST_ROWS` are left to the CSV, and said so.

    Args:
        table: any.
        shown: headings instead of the columns' names.
    """
    right = [' class="n"' if is_number(table[name]) else "" for name in table]
    heads = [
        f'<th scope="col"{side}>{esc(name)}</th>'
        for name, side in zip(shown or table.columns, right, strict=True)
    ]
    lines = []
    for row in table.head(MOST_ROWS).itertuples(index=False):
        values = zip(row, right, strict=True)
        lines.append("".join(f"<td{side}>{_shown(value)}</td>" for value, side in values))
    more = len(table) - MOST_ROWS
    note = f'<p class="soft">{more:,} more rows in the CSV file.</p>' if more > 0 else ""
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    return (
        f'<div class="scroll" tabindex="0"><table><thead><tr>{"".join(heads)}</tr></thead>'
        f"<tbody>\n{body}\n</tbody></table></div>{note}"
    )


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else ""
    return esc(text.number(value))


def row_table(name: str, table: pd.DataFrame, hint: str) -> str:
    """A sortable, filterable table that the page's script fills; for thousands of rows."""
    data = {
        "columns": [str(column) for column in table],
        "numeric": [bool(is_number(table[column])) for column in table],
        "score": [str(column).split(".")[0].split("_")[0] in ("valid", "test") for column in table],
        "size": len(table),
        "values": columns(table),
    }
    packed = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return (
        f'<div class="rows" id="{esc(name)}"><div class="tools"><label>Filter '
        f'<input type="search" placeholder="{esc(hint)}"></label>'
        '<button type="button">Back</button><button type="button">Next</button>'
        '<output aria-live="polite"></output></div>'
        '<div class="scroll" tabindex="0"></div></div>' + inert(packed, name)
    )


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Large numbers with small names, side by side."""
    parts = [f"<div><dt>{esc(k)}</dt><dd>{esc(v)}</dd></div>" for k, v in pairs]
    return f'<dl class="facts">{"".join(parts)}</dl>'

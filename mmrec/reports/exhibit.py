"""What a report is made of: a table, its finding in words, and a figure."""

from typing import NamedTuple

import pandas as pd
import plotly.graph_objects as go


class Exhibit(NamedTuple):
    """One figure of the report, or its table alone."""

    key: str
    """Names the div, the CSV file and the entry of results.json."""
    title: str
    finding: str
    """What it shows, in words."""
    table: pd.DataFrame
    figure: go.Figure | None

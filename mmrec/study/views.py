"""What a study asks its report to draw: plain values, which `mmrec.reports` reads.

A study that declares no views gets those that its factors suggest (`default_views`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Literal


@dataclass(frozen=True)
class HeatMap:
    """Mean test objective over two factors: one square a cell, holes shown with their reason.

    Where `y` is 0 and that row has one cell only, `x` is taken to be without effect there (a
    temperature under a weight of 0), and the cell is drawn over the whole width.
    """

    x: str
    """Dotted path, e.g. `model.tau`."""
    y: str
    """Dotted path, e.g. `model.alpha`."""


@dataclass(frozen=True)
class RatioCurve:
    """Objective against one factor over another, on a log axis; a numerator of 0 is a band."""

    numerator: str
    denominator: str


@dataclass(frozen=True)
class MainEffects:
    """Each factor's levels, averaged over all the others."""

    factors: tuple[str, ...]


@dataclass(frozen=True)
class Measures:
    """Numbers about the trained state, such as a collapse, against a factor or a ratio of two."""

    names: tuple[str, ...]
    """As in the columns `measure.<name>`."""
    over: str | tuple[str, str]
    """A dotted path, or (numerator, denominator)."""


@dataclass(frozen=True)
class CellForest:
    """Every cell's mean and interval, best first by validation; for conditions and models."""


@dataclass(frozen=True)
class Curve:
    """The test objective, or another column, against a factor, all else at the base's levels.

    Cells off the base in a factor that is neither `x`, `by` nor in `where` are left out, so that
    the sweep of one factor does not enter the curve of another.
    """

    x: str
    """A dotted path, `arm` or `condition`."""
    by: str = ""
    """One line a level of it: a dotted path, `arm` or `condition`; empty: one line."""
    column: str = ""
    """Such as `measure.semantic_cosine` or `cost.peak_mib`; empty: the test objective."""
    where: Mapping[str, Any] = field(default_factory=dict)
    """Levels of further columns, as in `mmrec.study.claims.Where`, instead of the base's."""


@dataclass(frozen=True)
class Pareto:
    """Every cell's test objective against its cost, and the cells that no other one dominates."""

    cost: str = "cost.epoch_seconds"
    by: str = ""
    """Colours the cells: a dotted path, `arm` or `condition`. Cells of different conditions do
    different tasks: unless it is `condition`, which gives each a front, only the base's count."""


# --- studies with arms, under conditions; `against` is the name of the condition compared with


@dataclass(frozen=True)
class Verdicts:
    """What became of the claims that name a topic and an arm: arms by topics."""

    variants: tuple[str, ...] = ("described", "gated", "frozen")
    """An arm `X described` is compared with `X`: does the verdict survive?"""


@dataclass(frozen=True)
class ConditionForest:
    """Paired differences of the test objective, every condition of every arm."""

    against: str = "baseline"


@dataclass(frozen=True)
class ConditionMap:
    """Relative change of the mean test objective: arms by conditions."""

    against: str = "baseline"


@dataclass(frozen=True)
class FillerSensitivity:
    """Whether the outcome of a knockout depends on what replaces the modality."""

    against: str = "baseline"


@dataclass(frozen=True)
class Strata:
    """Who is hit, in thirds: items by popularity, users by length of history and by interests."""

    against: str = "baseline"
    control: str = "LightGCN"
    """An arm without content; where there is one, every arm is compared with it under `against`."""


@dataclass(frozen=True)
class Gates:
    """The trained gates of modalities: measures called `gate.<modality>`."""


@dataclass(frozen=True)
class Published:
    """Our means beside a published table of arms by conditions."""

    name: str
    """Of the table in `mmrec/reports/published`, such as `knockout`."""


@dataclass(frozen=True)
class BeyondAccuracy:
    """What the lists are like beyond their accuracy, by arm (or cell) and condition."""

    names: tuple[str, ...] = ("coverage", "arp", "aplt", "pl")
    """Metrics of `mmrec.evaluation`, at the objective's cut-off."""
    against: str = ""
    """Label of the arm, cell or control that all others are compared with; empty: none."""


@dataclass(frozen=True)
class Availability:
    """The test objective by how many modalities are left at evaluation, all subsets of a size."""

    by: str = "arm"
    """One line a level of it: `arm`, or a dotted path."""


@dataclass(frozen=True)
class ArmMeasures:
    """Numbers about the trained state of every arm, with intervals over seeds."""

    names: tuple[str, ...]
    """As in the columns `measure.<name>`, such as `mmrec.gap.MEASURES`."""
    against: str = ""
    """The arm that all others are compared with; empty: none."""


@dataclass(frozen=True)
class Correspondence:
    """How often the codes of one modality of the next item are right, and those of the other not.

    Arms whose IDs have both modalities only; see `mmrec.models.mgr` for the measures.
    """

    modalities: tuple[str, str]
    """In the order of the ID, as in `measure.right_<modality>` and `measure.only_<modality>`."""


@dataclass(frozen=True)
class SharedHits:
    """Whose next item two arms both find, for all pairs of arms; see `mmrec.study.overlap`."""

    arms: tuple[str, ...] = ()
    """Empty: all arms, and the controls."""
    of: str = ""
    """An arm whose overlaps with those of `with_` are drawn by themselves; empty: of none."""
    with_: tuple[str, ...] = ()


@dataclass(frozen=True)
class MeasureCourse:
    """Numbers about the state at every evaluation against the epoch, one line an arm."""

    names: tuple[str, ...]
    """As above; trials record the modality gap of every epoch under `gap="epochs"`."""


@dataclass(frozen=True)
class Convergence:
    """Whether training had come to its end, cell by cell, and its course over the epochs."""

    most: int = 8
    """Cells that the picture shows; the tables have all."""


@dataclass(frozen=True)
class Tuning:
    """What the tries of nuisance knobs came to; drawn unasked wherever there are tries."""


@dataclass(frozen=True)
class Clouds:
    """Item embeddings of each modality before training and after; see `mmrec.study.clouds`."""

    show: Literal["measures", "relations", "spectra", "pictures"]
    """Numbers of each cloud, numbers of two clouds, variance by component, or a plane."""
    method: Literal["tsne", "umap"] = "tsne"
    """How pictures lay points on the plane; umap comes with the extra `umap`."""

    def __post_init__(self) -> None:
        # Asked before the first trial, since pictures are made after the last one.
        if self.method == "umap" and find_spec("umap") is None:
            raise ValueError(
                "pictures by method='umap' need umap-learn, which is not installed:"
                " pip install 'mmrec[umap]', or take method='tsne'"
            )


ArmView = Verdicts | ConditionForest | ConditionMap | FillerSensitivity | Strata | Gates | Published
SweepView = Curve | Pareto
FactorView = HeatMap | RatioCurve | MainEffects | Measures | CellForest
StateView = ArmMeasures | MeasureCourse | Convergence | Correspondence
ListView = BeyondAccuracy | SharedHits
View = FactorView | SweepView | Availability | ListView | StateView | Tuning | Clouds | ArmView

ARM_VIEWS: tuple[ArmView, ...] = (
    Verdicts(),
    ConditionForest(),
    ConditionMap(),
    FillerSensitivity(),
    Strata(),
    Gates(),
)
"""What a study of arms under conditions shows; for studies that add views of their own to it."""


def default_views(
    levels: Mapping[str, Sequence[Any]], measures: Sequence[str], compared: bool = False
) -> tuple[View, ...]:
    """What to draw when a study does not say.

    Args:
        levels: the distinct values of each factor, by dotted path.
        measures: names of the measures that trials recorded.
        compared: whether the study compares arms under several conditions.

    Returns:
        Every factor's main effect; every cell in a row; a heat map if exactly two factors have at
        most 30 levels each; measures over the factor with the most levels. Before them all views
        of arms under conditions, if there are any.
    """
    turned = {path: values for path, values in levels.items() if len(values) > 1}
    views: list[View] = []
    if compared:
        views += ARM_VIEWS
    small = [path for path, values in turned.items() if len(values) <= 30]
    if len(turned) == 2 and len(small) == 2:
        views.append(HeatMap(x=small[1], y=small[0]))
    views.append(CellForest())
    if turned:
        views.append(MainEffects(tuple(turned)))
    if turned and measures:
        views.append(Measures(tuple(measures), over=max(turned, key=lambda p: len(turned[p]))))
    return tuple(views)

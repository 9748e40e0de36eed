"""The code words that a model of semantic IDs gives its items: those of files, or fitted here.

Letters in names: I items, F feature columns, L levels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mmrec.data.dataset import Codes, Dense, Feature
from mmrec.nn.quantiser import Quantiser, fitted

FUSED = "fused"
"""What the modalities are called where one vector, and so one code, stands for all of them."""

Joint = Literal["concatenation", "mean"]


@dataclass(frozen=True)
class ItemCodes:
    """The code words of one modality of all items."""

    name: str
    codes: NDArray[np.int64]
    """(I, L), level l in [0, sizes[l]); 0 where missing."""
    sizes: tuple[int, ...]
    present: NDArray[np.bool_]
    """(I,)."""
    measures: Mapping[str, float] = field(default_factory=dict)
    """Numbers about the codes, by `<measure>_<name>`."""


def coded_modalities(
    wanted: Sequence[str] | None, features: Mapping[str, Feature], model: str, *, dense: bool
) -> tuple[str, ...]:
    """The modalities that become codes: those wanted, in that order, or all that can.

    Args:
        wanted: names; None takes all of a fitting kind, text first, then by alphabet.
        features: the dataset's item features.
        model: what the model is called in errors.
        dense: whether vectors are needed, so that codes from a file do not fit.

    Raises:
        KeyError: a name is unknown.
        TypeError: a feature is of a kind that does not fit.
        ValueError: a name occurs twice, or there is none.
    """
    kinds = (Dense,) if dense else (Dense, Codes)
    able = [name for name, feature in features.items() if isinstance(feature, kinds)]
    able = sorted(able, key=lambda name: (not name.startswith("text"), name))
    names = tuple(able if wanted is None else wanted)
    for name in names:
        if name not in features:
            raise KeyError(f"no item modality {name!r}; there are: {', '.join(able) or 'none'}")
        if name not in able:
            need = "vectors" if dense else "vectors or codes"
            raise TypeError(f"{model} needs {need}; {name!r} is of kind {features[name].kind!r}")
    if len(set(names)) < len(names):
        raise ValueError(f"modalities must be distinct, got {list(names)}")
    if not names:
        need = "dense" if dense else "dense or codes"
        have = ", ".join(f"{n} ({f.kind})" for n, f in sorted(features.items())) or "none"
        raise ValueError(f"{model} needs an item modality of kind {need}; the dataset has: {have}")
    return names


def codes_of(name: str, feature: Feature, quantiser: Quantiser, seed: int) -> ItemCodes:
    """Codes of a modality: as they come, or fitted to its vectors under a seed.

    Where no item has it, each level has one code word that stands for nothing.
    """
    if not feature.present.any():
        levels = len(feature.sizes) if isinstance(feature, Codes) else quantiser.levels
        nothing_IL = np.zeros((len(feature), levels), dtype=np.int64)
        return ItemCodes(name, nothing_IL, (1,) * levels, feature.present)
    if isinstance(feature, Codes):
        used = [
            len(np.unique(feature.codes[feature.present, level])) / size
            for level, size in enumerate(feature.sizes)
        ]
        measures = {f"usage_{name}": float(np.mean(used))}
        return ItemCodes(name, feature.codes, feature.sizes, feature.present, measures)
    assert isinstance(feature, Dense)
    return _fitted(name, feature.values, feature.present, quantiser, seed)


def fused_codes(
    features: Mapping[str, Feature],
    names: Sequence[str],
    joint: Joint,
    quantiser: Quantiser,
    seed: int,
) -> ItemCodes:
    """One code for all modalities, by their vectors of length 1 side by side, or their mean.

    A modality that an item lacks is a row of zeros; an item that lacks all has no code. Beside the
    measures of the codes stands, by `ami_<modality>`, the adjusted mutual information (Vinh et al.
    2010) of their first level with that of codes fitted to a modality alone, over the items that
    have it. Whole codes tell nearly all items apart, which leaves such a number nothing to adjust.

    Raises:
        ValueError: a mean is asked for of vectors of unlike widths.
    """
    from sklearn.metrics import adjusted_mutual_info_score  # half a second, and few come here

    units, present = [], []
    for name in names:
        feature = features[name]
        assert isinstance(feature, Dense)
        length_I1 = np.linalg.norm(feature.values, axis=1, keepdims=True)
        units.append(feature.values / np.maximum(length_I1, np.finfo(np.float32).tiny))
        present.append(feature.present)
    widths = {name: unit.shape[1] for name, unit in zip(names, units, strict=True)}
    if joint == "mean" and len(set(widths.values())) > 1:
        raise ValueError(
            f"the mean of modalities needs vectors of one width, got {widths}; 'concatenation' fits"
        )
    fused_IF = np.mean(units, axis=0) if joint == "mean" else np.concatenate(units, axis=1)
    any_I = np.any(present, axis=0)
    fused = _fitted(FUSED, fused_IF.astype(np.float32), any_I, quantiser, seed)
    measures = dict(fused.measures)
    for name in names:
        alone = codes_of(name, features[name], quantiser, seed)
        if not alone.present.any():
            continue
        first, other = fused.codes[alone.present, 0], alone.codes[alone.present, 0]
        measures[f"ami_{name}"] = float(adjusted_mutual_info_score(first, other))
    return ItemCodes(FUSED, fused.codes, fused.sizes, any_I, measures)


def _fitted(
    name: str,
    values_IF: NDArray[np.float32],
    present_I: NDArray[np.bool_],
    quantiser: Quantiser,
    seed: int,
) -> ItemCodes:
    found = fitted(values_IF, present_I, quantiser, seed)
    measures = {f"{measure}_{name}": value for measure, value in found.measures.items()}
    return ItemCodes(name, found.codes, found.sizes, present_I, measures)

"""Grids of samples whose columns are what is asked for."""

from collections.abc import Sequence

from ddpm_lightning.conditions.joint import Conditions
from ddpm_lightning.data.dataset import Annotation


def columns_of(conditions: Conditions) -> list[Annotation]:
    """Return every choice of the only wish, if there is one wish and it has choices; else none."""
    wishes = conditions.wishes
    if len(wishes) != 1:
        return []
    return [{wishes[0]: value} for value in conditions.members[wishes[0]].choices]


def in_columns(columns: Sequence[Annotation], num_samples: int) -> list[Annotation]:
    """Return what is asked of each clip of a grid with full rows, at least num_samples of them."""
    return list(columns) * -(-num_samples // len(columns))

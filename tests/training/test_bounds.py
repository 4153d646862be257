"""Constructors refuse what cannot work, saying what is allowed."""

import pytest

from ddpm_lightning.training.averages import ConstantDecay
from ddpm_lightning.training.callbacks.samples import SampleGrid


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_decay_outside_the_unit_interval_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match=r"decay must lie in \[0, 1\)"):
        ConstantDecay(decay)


def test_a_grid_without_samples_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1, got 0 and 10"):
        SampleGrid(None, 0, 1, 10, 0, "samples")  # type: ignore[arg-type]

"""Constructors refuse what cannot work, saying what is allowed."""

import pytest

from ddpm_lightning.averages import ConstantDecay


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_decay_outside_the_unit_interval_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match=r"decay must lie in \[0, 1\)"):
        ConstantDecay(decay)

"""Operators of a training step on a GPU, as benchmarks.launches counts them without one."""

import pytest

from benchmarks.launches import training_step

BEFORE = 1723  # of unet3d_tiny, when autocast cast each weight and activation where it was used


@pytest.mark.slow
def test_a_training_step_launches_a_third_of_the_operators_that_it_did() -> None:
    launches = training_step("tiny")
    assert launches.total <= BEFORE // 3
    assert launches.float32_products == 0
    assert [call.is_fast for call in launches.calls] == 12 * [True]

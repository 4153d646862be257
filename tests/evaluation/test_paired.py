"""Student's paired interval and Holm's adjustment against scipy and a worked example."""

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from ddpm_lightning.evaluation.paired import holm, paired


def test_interval_and_p_are_scipys() -> None:
    values = np.random.default_rng(0).normal(0.3, 1.0, 7).tolist()
    result, other = paired(values), ttest_1samp(values, 0.0)
    low, high = other.confidence_interval(0.95)
    assert result[:4] == pytest.approx((float(np.mean(values)), low, high, other.pvalue))


@pytest.mark.slow
def test_a_difference_that_is_visible_is_seen_in_80_of_100_cases() -> None:
    """Of 4000 sets of five with the true deviation 1: 2 standard errors of a share are 1.3 %."""
    generator = np.random.default_rng(1)
    visible = np.mean([paired(generator.normal(0, 1, 5).tolist()).visible for _ in range(500)])
    true = visible / 0.94  # stdev of five is 6 % too small on average
    draws = generator.normal(true, 1, (4000, 5))
    seen = (ttest_1samp(draws, 0.0, axis=1).pvalue < 0.05).mean()
    assert seen == pytest.approx(0.8, abs=0.05)  # by Student's t, not the noncentral one


def test_holm_multiplies_the_smallest_by_all_the_next_by_one_less_and_never_falls() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]

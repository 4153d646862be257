"""Paired differences over seeds: intervals, p-values for several hypotheses, what could be seen."""

from collections.abc import Sequence
from statistics import mean, stdev
from typing import NamedTuple

from scipy.stats import t as student_t

POWER = 0.8  # with which a difference that "could be seen" is


class Difference(NamedTuple):
    """The mean of n paired differences with Student's 95 % interval and two-sided p.

    visible: the smallest true mean that n such pairs show, p < 5 %, in 80 of 100 cases.
    """

    mean: float
    low: float
    high: float
    p: float
    visible: float
    num_pairs: int


def paired(differences: Sequence[float]) -> Difference:
    """Return what two or more differences say of their mean."""
    n = len(differences)
    value, error = mean(differences), stdev(differences) / n**0.5
    quantile = float(student_t.ppf(0.975, n - 1))
    p = 2 * float(student_t.sf(abs(value) / error, n - 1)) if error else float(value == 0)
    visible = (quantile + float(student_t.ppf(POWER, n - 1))) * error
    return Difference(value, value - quantile * error, value + quantile * error, p, visible, n)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for being several, by Holm's method (1979), in their order."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted

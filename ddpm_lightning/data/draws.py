"""Random numbers that are a function of their place: of a seed, a sample's number and a lane.

Whatever process, batch or restart asks for a sample gets the same draws. The hash is the finalizer
of SplitMix64 (Steele, Lea and Flood 2014), applied to the seed, the number and the lane in turn;
the order of an epoch comes from Philox, whose stream NumPy keeps for ever.
"""

import numpy as np


def uniform(seed: int, numbers: np.ndarray, num_lanes: int) -> np.ndarray:
    """Draws in [0, 1), (B, num_lanes) float64, for numbers (B,) of integers >= 0."""
    state = _mix(np.full((len(numbers), num_lanes), seed, dtype=np.uint64))
    state = _mix(state ^ numbers.astype(np.uint64)[:, None])
    state = _mix(state ^ np.arange(num_lanes, dtype=np.uint64))
    draws: np.ndarray = (state >> np.uint64(11)) * 2.0**-53
    return draws


def permutation(seed: int, epoch: int, num_samples: int) -> np.ndarray:
    """0 .. num_samples - 1 in an order of their own for every (seed, epoch)."""
    keys = np.random.Philox(key=[seed, epoch]).random_raw(num_samples)
    order: np.ndarray = np.argsort(keys, kind="stable")
    return order


def _mix(state: np.ndarray) -> np.ndarray:
    """A bijection of 64-bit integers (uint64, wrapping) under which close ones end far apart."""
    state = state + np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = state ^ (state >> np.uint64(31))
    return mixed

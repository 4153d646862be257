"""What a table of results says of the four hypotheses, each by paired differences over seeds."""

from collections.abc import Iterable
from math import log
from statistics import mean
from typing import NamedTuple

from ddpm_lightning.evaluation.paired import Difference, holm, paired
from ddpm_lightning.run.study.plan import BASE, FROZEN, HYBRID, MEDIAN
from ddpm_lightning.run.study.sampling import (
    ANCESTRAL,
    EVALUATED_LONG,
    MEDIAN_CHAIN,
    MIDPOINT,
    OF_MEMORY,
    PAIR,
    STANDARD,
    own_path,
)
from ddpm_lightning.run.study.table import Table, Training, Walk

NUM_EARLY = 3  # checkpoints that are early training
LEVEL = 0.05
SPATIAL, TEMPORAL = "quality/spatial/pixels", "quality/temporal/pixels"
AGREEMENT = "digit_agreement/mean"
MEMORY = ("memorisation/content", "memorisation/motion")


class Finding(NamedTuple):
    """A hypothesis and what was seen of it.

    difference: what p is of; None where there are too few seeds.   more: differences besides.
    p, adjusted: 1 where nothing was tested.   verdict: whether it holds.
    """

    name: str
    statement: str
    difference: Difference | None
    p: float
    adjusted: float
    verdict: str
    more: dict[str, Difference]


def log_errors(table: Table, arm: str, loss: str, clips: str, early: bool) -> dict[int, float]:
    """Return by seed the mean log val/error of the early checkpoints, or that of the last."""
    rows = (r for r in table.trainings if (r.arm, r.loss, r.clips) == (arm, loss, clips))
    return {row.seed: log_error(row, early) for row in rows}


def log_error(row: Training, early: bool) -> float:
    """Return a run's mean log val/error of the early checkpoints, or that of the last."""
    errors = row.error[:NUM_EARLY] if early else row.error[-1:]
    return mean(map(log, errors))


def distance(walk: Walk) -> float:
    """Return the mean of a walk's spatial and temporal distance in pixels."""
    return (walk.values[SPATIAL][0] + walk.values[TEMPORAL][0]) / 2


def agreement(walk: Walk) -> float | None:
    """Return the share of frames that agree on a digit; None where clips show none."""
    return walk.values[AGREEMENT][0] if AGREEMENT in walk.values else None


def memory(walk: Walk) -> float:
    """Return the mean of memorisation in content and in motion."""
    return mean(walk.values[name][0] for name in MEMORY)


def difference(one: dict[int, float], other: dict[int, float]) -> Difference | None:
    """Return the paired difference over the seeds that both have; None for fewer than two."""
    seeds = sorted(one.keys() & other.keys())
    return paired([one[s] - other[s] for s in seeds]) if len(seeds) > 1 else None


class Walks:
    """The walks of a table by what they are of."""

    def __init__(self, walks: Iterable[Walk], of_first: str) -> None:
        self._by_key = {
            (w.clips == FROZEN, w.arm, w.chain, w.sampler, w.grid, w.evaluations, w.seed): w
            for w in walks
            if w.loss == of_first
        }

    def seeds(
        self, arm: str, chain: str, sampler: str, evaluations: int, frozen: bool = False
    ) -> dict[int, Walk]:
        """Return walks by seed."""
        wanted = (frozen, arm, chain, sampler, None, evaluations)
        return {key[-1]: w for key, w in self._by_key.items() if key[:-1] == wanted}

    def evaluations(self, arm: str) -> list[int]:
        """Return the numbers of evaluations that an arm was sampled with."""
        return sorted({key[5] for key in self._by_key if key[1] == arm and not key[0]})


def path_differences(walks: Walks, arm: str, sampler: str) -> dict[int, dict[int, float]]:
    """Return by evaluations and seed how far a median walk's distance is from ancestral's."""
    result = {}
    for count in walks.evaluations(arm):
        ours = walks.seeds(arm, MEDIAN_CHAIN, sampler, count)
        base = walks.seeds(arm, STANDARD, ANCESTRAL, count)
        common = sorted(ours.keys() & base.keys())
        result[count] = {s: distance(ours[s]) - distance(base[s]) for s in common}
    return result


def over_calls(by_count: dict[int, dict[int, float]]) -> dict[int, float]:
    """Return by seed the mean over the numbers of evaluations, of seeds that have all of them."""
    if not by_count:
        return {}
    seeds = set.intersection(*(set(of_count) for of_count in by_count.values()))
    return {s: mean(of_count[s] for of_count in by_count.values()) for s in sorted(seeds)}


def findings(table: Table) -> list[Finding]:
    """Return H1 to H4, in order."""
    first = table.options["losses"][0]
    main = next((row.clips for row in table.trainings if row.clips != FROZEN), "")
    walks = Walks(table.walks, first)
    h1 = difference(
        log_errors(table, HYBRID, first, main, True), log_errors(table, BASE, first, main, True)
    )
    h2, parts = _h2(walks)
    far, agree = _h3(walks)
    p3 = max((d.p for d in (far, agree) if d), default=1.0)
    won = {
        HYBRID: h1 is not None and h1.mean < 0 and h1.p < LEVEL,
        MEDIAN: far is not None and far.mean < 0 and p3 < LEVEL,
    }
    memories = _h4(walks)
    tested = [memories[arm] for arm, wins in won.items() if wins and arm in memories]
    h4 = max(tested, key=lambda d: d.mean, default=None)
    ps = [1.0 if d is None else d.p for d in (h1, h2)] + [p3 if far else 1.0]
    ps.append(h4.p if h4 else 1.0)
    adjusted = holm(ps)
    is_agreed = agree is None or agree.mean > 0
    verdicts = [
        _verdict(h1, adjusted[0]),
        _verdict(h2, adjusted[1]),
        _verdict(far, adjusted[2], is_agreed),
        _verdict_h4(h4, adjusted[3]),
    ]
    names = (
        ("H1", "hybrid's density trains faster than cosine's, early"),
        ("H2", "median walks beat ancestral, equal calls and weights"),
        ("H3", "median x hybrid beats standard x cosine"),
        ("H4", "the gain is no memorisation"),
    )
    both = {name: d for name, d in (("distance", far), ("agreement", agree)) if d}
    more: list[dict[str, Difference]] = [{}, parts, both, memories]
    seen = (h1, h2, far, h4)
    return [Finding(*names[i], seen[i], ps[i], adjusted[i], verdicts[i], more[i]) for i in range(4)]


def _h2(walks: Walks) -> tuple[Difference | None, dict[str, Difference]]:
    by_path = {
        f"{sampler}, {arm}'s network": over_calls(path_differences(walks, arm, sampler))
        for arm in (BASE, HYBRID)
        for sampler in (MIDPOINT, PAIR)
    }
    by_path = {name: of_seed for name, of_seed in by_path.items() if of_seed}
    if not by_path:
        return None, {}
    most = max(map(len, by_path.values()))  # seeds; a network that the clock cut short is left out
    pooled = over_calls(dict(enumerate(d for d in by_path.values() if len(d) == most)))
    parts = {name: difference(d, dict.fromkeys(d, 0.0)) for name, d in by_path.items()}
    seen = {name: part for name, part in parts.items() if part}
    return difference(pooled, dict.fromkeys(pooled, 0.0)), seen


def _h3(walks: Walks) -> tuple[Difference | None, Difference | None]:
    """Return the differences of distance, and of agreement where clips show digits."""
    far: dict[int, dict[int, float]] = {}
    agree: dict[int, dict[int, float]] = {}
    for count in EVALUATED_LONG:
        ours = walks.seeds(MEDIAN, *own_path(MEDIAN), count)
        base = walks.seeds(BASE, *own_path(BASE), count)
        common = sorted(ours.keys() & base.keys())
        far[count] = {s: distance(ours[s]) - distance(base[s]) for s in common}
        pairs = {s: (agreement(ours[s]), agreement(base[s])) for s in common}
        agree[count] = {s: a - b for s, (a, b) in pairs.items() if a is not None and b is not None}
    return tuple(  # type: ignore[return-value]
        difference(seeds := over_calls(by_count), dict.fromkeys(seeds, 0.0))
        for by_count in (far, agree)
    )


def _h4(walks: Walks) -> dict[str, Difference]:
    """Return by arm how much more than standard x cosine it memorises, on the frozen clips."""
    base = walks.seeds(BASE, *own_path(BASE), OF_MEMORY, frozen=True)
    result = {}
    for arm in (HYBRID, MEDIAN):
        ours = walks.seeds(arm, *own_path(arm), OF_MEMORY, frozen=True)
        values = {s: memory(walk) for s, walk in ours.items()}
        seen = difference(values, {s: memory(walk) for s, walk in base.items()})
        if seen:
            result[arm] = seen
    return result


def _verdict(seen: Difference | None, adjusted: float, others_agree: bool = True) -> str:
    if seen is None:
        return "not tested"
    if seen.low > 0:
        return "the opposite"
    return "holds" if adjusted < LEVEL and seen.mean < 0 and others_agree else "not shown"


def _verdict_h4(seen: Difference | None, adjusted: float) -> str:
    if seen is None:
        return "nothing was gained"
    return "refuted" if adjusted < LEVEL and seen.mean > 0 else "not refuted"

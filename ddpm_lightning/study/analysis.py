"""What a table of results says of the four hypotheses, each by paired differences over seeds."""

from collections.abc import Callable, Iterable
from math import log
from statistics import mean
from typing import Any, NamedTuple

from ddpm_lightning.evaluation.paired import Difference, holm, paired
from ddpm_lightning.study.plan import BASE, FROZEN, HYBRID, MEDIAN
from ddpm_lightning.study.sampling import (
    EVALUATED_LONG,
    MEDIAN_CHAIN,
    MIDPOINT,
    OF_MEMORY,
    PAIR,
    own_path,
)
from ddpm_lightning.study.table import Table, Training, Walk

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


def early_error(row: Training) -> float:
    """Return a run's mean log val/error of the early checkpoints."""
    return mean(map(log, row.error[:NUM_EARLY]))


def last_error(row: Training) -> float:
    """Return a run's log val/error at its end."""
    return log(row.error[-1])


def distance(walk: Walk) -> float:
    """Return the mean of a walk's spatial and temporal distance in pixels."""
    return (walk.values[SPATIAL][0] + walk.values[TEMPORAL][0]) / 2


def agreement(walk: Walk) -> float | None:
    """Return the share of frames that agree on a digit; None where clips show none."""
    return walk.values[AGREEMENT][0] if AGREEMENT in walk.values else None


def memory(walk: Walk) -> float:
    """Return the mean of memorisation in content and in motion."""
    return mean(walk.values[name][0] for name in MEMORY)


BySeed = dict[int, float]


def by_seed(rows: Iterable[Any], value: Callable[[Any], float | None], **of: Any) -> BySeed:
    """Return by seed the value, if any, of the rows with these attributes."""
    own = (row for row in rows if all(getattr(row, key) == v for key, v in of.items()))
    return {row.seed: v for row in own if (v := value(row)) is not None}


def less(one: BySeed, other: BySeed) -> BySeed:
    """Return one less the other, of the seeds that both have."""
    return {seed: one[seed] - other[seed] for seed in sorted(one.keys() & other.keys())}


def mean_of(parts: list[BySeed]) -> BySeed:
    """Return the mean over parts, of the seeds that all have."""
    seeds = set.intersection(*map(set, parts)) if parts else set()
    return {seed: mean(part[seed] for part in parts) for seed in sorted(seeds)}


def paired_difference(by_seed: BySeed) -> Difference | None:
    """Return what differences by seed say of their mean; None for fewer than two."""
    return paired(list(by_seed.values())) if len(by_seed) > 1 else None


def findings(table: Table) -> list[Finding]:
    """Return H1 to H4, in order."""
    first = table.options["losses"][0]
    trained = [row for row in table.trainings if row.clips != FROZEN and row.loss == first]
    drawn = [walk for walk in table.walks if walk.loss == first and walk.grid is None]
    walks = [walk for walk in drawn if walk.clips != FROZEN]
    early = [by_seed(trained, early_error, arm=arm) for arm in (HYBRID, BASE)]
    h1 = paired_difference(less(*early))
    h2, parts = _h2(walks)
    far, agree = (_h3(walks, value) for value in (distance, agreement))
    p3 = max((d.p for d in (far, agree) if d), default=1.0) if far else 1.0
    memories = _h4([walk for walk in drawn if walk.clips == FROZEN])
    won = {
        HYBRID: h1 is not None and h1.mean < 0 and h1.p < LEVEL,
        MEDIAN: far is not None and far.mean < 0 and p3 < LEVEL,
    }
    tested = [memories[arm] for arm, wins in won.items() if wins and arm in memories]
    h4 = max(tested, key=lambda d: d.mean, default=None)
    both = {name: d for name, d in (("distance", far), ("agreement", agree)) if d}
    seen = (h1, h2, far, h4)
    ps = [1.0 if d is None else d.p for d in seen]
    ps[2] = p3
    adjusted = holm(ps)
    verdicts = [_verdict(d, p) for d, p in zip(seen[:3], adjusted, strict=False)]
    if verdicts[2] == "holds" and agree is not None and agree.mean <= 0:
        verdicts[2] = "not shown"
    if h4 is None:
        verdicts.append("nothing was gained")
    else:
        verdicts.append("refuted" if adjusted[3] < LEVEL and h4.mean > 0 else "not refuted")
    names = (
        ("H1", "hybrid's density trains faster than cosine's, early"),
        ("H2", "median walks beat ancestral, equal calls and weights"),
        ("H3", "median x hybrid beats standard x cosine"),
        ("H4", "the gain is no memorisation"),
    )
    more: list[dict[str, Difference]] = [{}, parts, both, memories]
    return [Finding(*names[i], seen[i], ps[i], adjusted[i], verdicts[i], more[i]) for i in range(4)]


def _verdict(seen: Difference | None, adjusted: float) -> str:
    if seen is None:
        return "not tested"
    if seen.low > 0:
        return "the opposite"
    return "holds" if adjusted < LEVEL and seen.mean < 0 else "not shown"


def _h2(walks: list[Walk]) -> tuple[Difference | None, dict[str, Difference]]:
    """Return the pooled difference, and that of each network and walk."""
    by_path = {}
    for arm in (BASE, HYBRID):
        own = [walk for walk in walks if walk.arm == arm]
        counts = sorted({walk.evaluations for walk in own})
        for sampler in (MIDPOINT, PAIR):
            chains = {"chain": MEDIAN_CHAIN, "sampler": sampler}, _path(BASE)
            of_seed = mean_of([_less_at(own, distance, n, *chains) for n in counts])
            if of_seed:
                by_path[f"{sampler}, {arm}'s network"] = of_seed
    # A network that the clock cut short is left out.
    most = max(map(len, by_path.values()), default=0)
    pooled = mean_of([of_seed for of_seed in by_path.values() if len(of_seed) == most])
    parts = {name: paired_difference(of_seed) for name, of_seed in by_path.items()}
    return paired_difference(pooled), {name: part for name, part in parts.items() if part}


def _h3(walks: list[Walk], value: Callable[[Any], float | None]) -> Difference | None:
    """Return the difference of a value, by the walk that each arm was meant for."""
    arms = [{"arm": arm, **_path(arm)} for arm in (MEDIAN, BASE)]
    return paired_difference(mean_of([_less_at(walks, value, n, *arms) for n in EVALUATED_LONG]))


def _h4(frozen: list[Walk]) -> dict[str, Difference]:
    """Return by arm how much more than standard x cosine it memorises, on the frozen clips."""
    base = {"arm": BASE, **_path(BASE)}
    seen = {
        arm: paired_difference(
            _less_at(frozen, memory, OF_MEMORY, {"arm": arm, **_path(arm)}, base)
        )
        for arm in (HYBRID, MEDIAN)
    }
    return {arm: d for arm, d in seen.items() if d}


def _path(arm: str) -> dict[str, str]:
    """Return the chain and the sampler that an arm was meant for."""
    return dict(zip(("chain", "sampler"), own_path(arm), strict=True))


def _less_at(
    walks: list[Walk],
    value: Callable[[Any], float | None],
    evaluations: int,
    ours: dict[str, str],
    base: dict[str, str],
) -> BySeed:
    """Return by seed how far a value of walks is from that of others, at equal evaluations."""
    return less(*(by_seed(walks, value, evaluations=evaluations, **of) for of in (ours, base)))

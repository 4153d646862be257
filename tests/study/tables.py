"""A table of results of known effects."""

from math import exp
from typing import Any

from hydra import compose, initialize_config_dir

from ddpm_lightning.run.config.check import resolved
from ddpm_lightning.run.config.words import CONF
from ddpm_lightning.study.analysis import SPATIAL, TEMPORAL
from ddpm_lightning.study.plan import cells
from ddpm_lightning.study.sampling import walks
from ddpm_lightning.study.table import Table, Training, Walk

EFFECT = -0.2  # of hybrid's density on log val/error, early
BETTER = -0.5  # of median walks on a distance


def options(*words: str) -> dict[str, Any]:
    """Return the options of a study."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        node: dict[str, Any] = resolved(compose("study", list(words)))["study"]
    return node


def table(*words: str, effect: float = EFFECT, better: float = BETTER) -> Table:
    """Return a study's table with the differences given, and a scatter over seeds that pairs
    share, but for a part of 0.01.
    """
    study = options(*words)
    planned = cells(study)
    trainings = []
    for cell in planned:
        shift = effect if cell.arm == "hybrid" else 0.0
        seed = 0.3 * cell.seed + 0.01 * ((cell.seed * 7 + len(cell.arm)) % 3)
        errors = [exp(shift + seed - step) for step in range(5)]
        levels = {f"{level:+06.2f}": errors for level in (-6.0, 0.0, 6.0)}
        trainings.append(
            Training(
                **cell._asdict(),
                steps=[200, 400, 600, 800, 1000],
                error=errors,
                by_level=levels,
                seconds=60.0,
            )
        )
    drawn = []
    for walk in walks(planned, study):
        gain = better if walk.chain == "median" else 0.0
        value = 10 / walk.evaluations + walk.cell.seed + gain + 0.01 * (len(walk.cell.arm) % 2)
        values = dict.fromkeys((SPATIAL, TEMPORAL), (value, 0.1, -0.1, 0.1))
        values["digit_agreement/mean"] = (0.5 - gain / 2, 0.02, 1.0, 1.0)
        values["memorisation/content"] = values["memorisation/motion"] = (0.4, 0.02, 0.45, 0.55)
        drawn.append(
            Walk(
                **walk.cell._asdict(),
                **{k: v for k, v in walk._asdict().items() if k != "cell"},
                calls=walk.evaluations,
                values=values,
            )
        )
    return Table(
        made_by={},
        options=study,
        planned=[cell.name for cell in planned],
        trainings=trainings,
        walks=drawn,
    )

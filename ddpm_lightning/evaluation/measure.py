"""What a measure is, and the card that each of its numbers comes with.

A measure says what it measures, in which unit, whether less or more is better and which parts of a
configuration may differ between two runs whose numbers are compared. Nothing is ranked by a number
that is not comparable. Measures are of a denoiser on clips, or of samples against clips.
"""

import json
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, field
from math import inf, isnan
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student_t
from torch import Tensor

from ddpm_lightning.evaluation.distances import Floor
from ddpm_lightning.evaluation.subject import Subject
from ddpm_lightning.files.atomic import write_file
from ddpm_lightning.likelihood.base import mean_and_error

# Nodes of a configuration that change what is learned, not what a number means.
LEARNING = (
    *("network", "optimizer", "trainer", "seed"),
    "guidance",  # of the grids in training
    *("callbacks.ema", "callbacks.checkpoints", "callbacks.samples", "callbacks.hang"),
    *("model.warmup_steps", "model.cooldown", "model.compile", "model.seed", "model.optimizer"),
    *("data.batch_size", "data.num_workers", "data.seed"),
    *("data.flip", "data.fps_jitter", "data.shift", "data.zoom"),
)
# As well those that change how: for numbers that are of the same quantity on the same clips.
EVERYTHING_BUT_DATA = (*LEARNING, "model", "noise", "objective", "loss", "times", "sampler")
# And what is known of clips, which makes a denoiser's error less: for numbers of samples.
OF_SAMPLES = (*EVERYTHING_BUT_DATA, "condition")


@dataclass(frozen=True)
class Result:
    """One number.

    standard_error: of the value; None where nothing shows it.
    interval: that covers 95 %, (low, high).
    floor: what real clips against real ones give, at equal numbers.
    facts: what else the number depends on or is made of, in plain containers.
    """

    value: float
    standard_error: float | None = None
    interval: tuple[float, float] | None = None
    floor: Floor | None = None
    facts: dict[str, Any] = field(default_factory=dict)


def mean_of_clips(values: Tensor, **facts: Any) -> Result:
    """Return the mean of (N,) values of clips with its standard error, and Student's interval."""
    value, error = mean_and_error(values)
    if isnan(error):  # of a single clip
        return Result(value, facts=facts)
    half = float(student_t.ppf(0.975, len(values) - 1)) * error
    return Result(value, error, (value - half, value + half), facts=facts)


def around(value: float, error: float, low: float = -inf, high: float = inf) -> tuple[float, float]:
    """Return where a normal law has 95 %, within what is possible."""
    return max(value - 1.96 * error, low), min(value + 1.96 * error, high)


class Measure(ABC):
    """Measures a subject."""

    name: str
    unit: str
    less_is_better: bool | None  # None: neither; it is not ranked by
    comparable_across: tuple[str, ...]
    of_samples = False  # or of a denoiser, whatever the sampler

    @abstractmethod
    def __call__(self, subject: Subject) -> dict[str, Result]:
        """Return the numbers by name, all of this unit and direction.

        Raises:
            ValueError: in one line, where the subject's clips do not suffice.
        """

    def details(self, results: dict[str, Result]) -> str | None:
        """Return what results are made of, in lines for people."""
        return None

    def picture(self, subject: Subject, results: dict[str, Result]) -> np.ndarray | None:
        """Return what there is to see of a subject and its results, uint8 (H, W, 3)."""
        return None


@dataclass(frozen=True)
class Card:
    """A number with all that it depends on.

    clips: number, frames, fps, size, channels, resize filter of the real ones.
    run: checkpoint, step, weights.
    samples: number, sampler, evaluations, network calls, seed; None for a measure of a denoiser.
    extractor: name and sha256 of the features; None where there are none.
    settings: the options of the measure.
    """

    name: str
    value: float
    unit: str
    less_is_better: bool | None
    standard_error: float | None
    interval: tuple[float, float] | None
    floor: Floor | None
    comparable_across: tuple[str, ...]
    clips: dict[str, Any]
    run: dict[str, Any]
    samples: dict[str, Any] | None
    extractor: dict[str, Any] | None
    settings: dict[str, Any]
    facts: dict[str, Any]


def cards_of(
    measure: Measure,
    subject: Subject,
    results: dict[str, Result],
    run: dict[str, Any],
    settings: dict[str, Any],
) -> list[Card]:
    """Return the cards of a measure's results; run and settings as a card has them."""
    extractor = getattr(measure, "extractor", None)
    return [
        Card(
            name=f"{measure.name}/{name}",
            **vars(result),
            unit=measure.unit,
            less_is_better=measure.less_is_better,
            comparable_across=measure.comparable_across,
            clips=subject.reference.facts(),
            run=run,
            samples=subject.sample_facts() if measure.of_samples else None,
            extractor=extractor and {"name": extractor.name, "sha256": extractor.sha256},
            settings=settings,
        )
        for name, result in results.items()
    ]


def write_cards(cards: list[Card], path: Path) -> Path:
    """Write cards as JSON; what was there stays if that fails."""
    nodes = [asdict(card) | {"floor": card.floor and card.floor._asdict()} for card in cards]
    data = (json.dumps(nodes, indent=2) + "\n").encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, [data], len(data))
    return path

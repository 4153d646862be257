"""evaluate.py curve.samplers=[..]: measures of samples over the network calls that they took."""

from itertools import groupby
from pathlib import Path

from hydra import compose

from ddpm_lightning.evaluation.measure import Card, Measure, cards_of, write_cards
from ddpm_lightning.evaluation.report import aligned, number
from ddpm_lightning.evaluation.subject import Subject
from ddpm_lightning.plots.calls import CallsPanel, CallsPoint, save_calls
from ddpm_lightning.run.build import build_sampler
from ddpm_lightning.run.config import Node, check_options
from ddpm_lightning.run.errors import UserError, user_errors
from ddpm_lightning.samplers.base import Sampler

Points = dict[tuple[str, int], Sampler]


def build_points(options: Node, subject: Subject) -> Points:
    """Build every sampler of a curve with every number of evaluations.

    Raises:
        UserError: where one of them cannot walk the process, before any has.
    """
    check_options("curve", options)
    points = {}
    for name in options["samplers"]:
        for evaluations in sorted(set(options["evaluations"])):
            words = [f"sampler={name}", f"sampler.num_evaluations={evaluations}"]
            sampler = build_sampler(compose("sample", ["checkpoint=???", *words]).sampler)
            with user_errors(f"curve: {name} at {evaluations}"):
                sampler.times(subject.denoiser.process)
            points[name, evaluations] = sampler
    return points



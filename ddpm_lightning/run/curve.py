"""evaluate.py curve.samplers=[..]: samplers at several numbers of evaluations, side by side."""

from ddpm_lightning.evaluation.measure import Card
from ddpm_lightning.evaluation.report import aligned, number, real_against_real
from ddpm_lightning.plots.calls import CallsPanel, CallsPoint
from ddpm_lightning.processes.base import GaussianProcess
from ddpm_lightning.run.build import build_sampler, sampler_node
from ddpm_lightning.run.config import Node
from ddpm_lightning.run.errors import user_errors
from ddpm_lightning.samplers.base import Sampler

Curve = dict[tuple[str, int], Sampler]  # by option of conf/sampler, and evaluations


def build_curve(options: Node, process: GaussianProcess, floor: float) -> Curve:
    """Build every sampler with every number of evaluations.

    Args:
        floor: of log-SNR, from which they walk.
    Raises:
        UserError: where one of them cannot walk the process, before any does.
    """
    curve = {}
    for name in options["samplers"]:
        for evaluations in sorted(set(options["evaluations"])):
            sampler = build_sampler(sampler_node(name, f"sampler.num_evaluations={evaluations}"))
            with user_errors(f"curve.samplers: {name} at {evaluations} evaluations"):
                sampler.times(process, floor)
            curve[name, evaluations] = sampler
    return curve


def table(curve: Curve, points: list[list[Card]]) -> str:
    """Return a row for each point of a curve, a column for each number, and their floors.

    Args:
        points: the cards of a measure at each.
    """
    header = ["sampler", "network calls", *(card.name for card in points[0])]
    rows = [
        [name, str(_calls(cards[0])), *map(number, cards)]
        for (name, _), cards in zip(curve, points, strict=True)
    ]
    return aligned(header, [*rows, ["real against real", "", *map(real_against_real, points[0])]])


def panels(curve: Curve, points: list[list[Card]]) -> list[CallsPanel]:
    """Return a panel for each number of a measure, with a line for each sampler."""
    drawn = []
    for cards in zip(*points, strict=True):  # of one number
        lines: dict[str, list[CallsPoint]] = {}
        for (sampler, _), card in zip(curve, cards, strict=True):
            assert card.interval is not None
            point = CallsPoint(_calls(card), card.value, *card.interval)
            lines.setdefault(sampler, []).append(point)
        floor = cards[0].floor
        assert floor is not None
        drawn.append(CallsPanel(cards[0].name, lines, (floor.low, floor.high)))
    return drawn


def _calls(card: Card) -> int:
    assert card.samples is not None
    return int(card.samples["network_calls"])

"""Where evaluate.py's numbers go: tables on the screen, cards and pictures in a folder.

curve.samplers=[..] measures with several samplers at several numbers of evaluations, side by side.
"""

from dataclasses import replace
from pathlib import Path

import torch

from ddpm_lightning.evaluation.measure import Card, Measure, cards_of, write_cards
from ddpm_lightning.evaluation.report import aligned, counts, number, real_against_real, table
from ddpm_lightning.evaluation.subject import Subject
from ddpm_lightning.plots.calls import CallsPanel, CallsPoint, save_calls
from ddpm_lightning.plots.stills import write_png
from ddpm_lightning.processes.base import GaussianProcess
from ddpm_lightning.run.config.build import build_sampler, sampler_node
from ddpm_lightning.run.config.check import Node
from ddpm_lightning.run.config.errors import user_errors
from ddpm_lightning.samplers.base import Sampler

Curve = dict[tuple[str, int], Sampler]  # by option of conf/sampler, and evaluations


class Results:
    """Measures, prints and writes.

    refusals: of measures that the run does not allow, a line each.

    Args:
        run: checkpoint and step, for the cards.
        settings: of the measures by name, for the cards.
        directory: of the files.
    """

    def __init__(self, run: Node, settings: Node, directory: Path) -> None:
        self.run, self.settings, self.directory = run, settings, directory
        self.refusals: list[str] = []
        with user_errors("output"):
            directory.mkdir(parents=True, exist_ok=True)

    def measure(self, name: str, measure: Measure, subjects: dict[str, Subject]) -> None:
        """Measure subjects, which are named by their weights."""
        cards, details = [], []
        try:
            for weights, subject in subjects.items():
                results = measure(subject)
                if (lines := measure.details(results)) is not None:
                    details.append(f"{name}, {weights} weights:\n{lines}")
                run = {**self.run, "weights": weights}
                cards += cards_of(measure, subject, results, run, self.settings[name])
                if (picture := measure.picture(subject, results)) is not None:
                    write_png(torch.from_numpy(picture), self.directory / f"{name}_{weights}.png")
        except ValueError as error:
            self._refuse(name, error)
        else:
            write_cards(cards, self.directory / f"{name}.json")
            print("\n".join([table(cards), *details]))

    def measure_curve(
        self, measures: dict[str, Measure], curve: Curve, subjects: dict[str, Subject]
    ) -> None:
        """Measure subjects with each sampler of a curve."""
        for weights, subject in subjects.items():
            cards: dict[str, list[list[Card]]] = {name: [] for name in measures}
            run = {**self.run, "weights": weights}
            for sampler in curve.values():
                at = replace(subject, sampler=sampler)
                for name in list(cards):
                    measure, settings = measures[name], self.settings[name]
                    try:
                        cards[name].append(cards_of(measure, at, measure(at), run, settings))
                    except ValueError as error:
                        self._refuse(name, error)
                        del cards[name]
            for name, points in cards.items():
                flat = [card for of_point in points for card in of_point]
                path = write_cards(flat, self.directory / f"curve_{name}_{weights}.json")
                save_calls(panels(curve, points), flat[0].unit, path.with_suffix(".png"))
                print(f"{name} of {counts(flat[0])}, {weights} weights")
                print(curve_table(curve, points))

    def _refuse(self, name: str, error: ValueError) -> None:
        self.refusals.append(f"{name}: {error}")
        print(f"{name} is not measured: {error}")


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


def curve_table(curve: Curve, points: list[list[Card]]) -> str:
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

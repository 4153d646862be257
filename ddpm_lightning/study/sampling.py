"""The samples of a study: walks on one network's weights, along its own chain and along others.

A network knows no process: any may take the place of the one that it was trained with. Walks with
one seed begin with the same noise. Each one's numbers are cards in the directory of its run; what
has them is not drawn again.
"""

import time
from collections.abc import Callable
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch
from hydra import compose
from hydra.utils import instantiate

from ddpm_lightning.denoiser import Denoiser
from ddpm_lightning.evaluation.measure import Card, Measure, cards_of, write_cards
from ddpm_lightning.evaluation.measures.distances import DistanceMeasure
from ddpm_lightning.evaluation.subject import Reference, Subject
from ddpm_lightning.processes.base import GaussianProcess
from ddpm_lightning.run.commands.evaluate import build_measures, open_data
from ddpm_lightning.run.config.build import build_sampler, sampler_node
from ddpm_lightning.run.config.check import Node, resolved
from ddpm_lightning.run.config.errors import user_errors
from ddpm_lightning.run.config.job import composed_job
from ddpm_lightning.run.directory.checkpoint import Run, choose_denoiser, find_run
from ddpm_lightning.samplers.base import Sampler
from ddpm_lightning.study.plan import BASE, FROZEN, HYBRID, MEDIAN, STREAM, Cell, words
from ddpm_lightning.study.training import run_of

STANDARD, MEDIAN_CHAIN = "standard", "median"
ANCESTRAL, MIDPOINT, PAIR = "ancestral", "midpoint", "pair"
NUM_KEPT = 16  # clips of a walk, to be looked at
OF_MEMORY = 20  # evaluations of the walks whose memorisation is compared
BATCH_SIZE = 32
EVALUATED_LONG = (20, 50)  # evaluations of the literal pairing


def own_path(arm: str) -> tuple[str, str]:
    """Return the chain and the sampler that an arm was meant for."""
    return (MEDIAN_CHAIN, MIDPOINT) if arm == MEDIAN else (STANDARD, ANCESTRAL)


class StudyWalk(NamedTuple):
    """Samples of a cell's network. grid: of conf/sampler/grid; None: the sampler's own."""

    cell: Cell
    chain: str
    sampler: str
    evaluations: int
    grid: str | None = None

    @property
    def name(self) -> str:
        parts = (self.chain, self.sampler, *([self.grid] if self.grid else []), self.evaluations)
        return "-".join(map(str, parts))


def walks(cells: list[Cell], options: Node) -> list[StudyWalk]:
    """Return the walks on cells by importance, each seed by seed: of H2 and H3 on cosine's network,
    those that are drawn once only, and of H2 on hybrid's.
    """
    first, evaluations = options["losses"][0], options["evaluations"]
    long = [n for n in evaluations if n in EVALUATED_LONG] or evaluations[-1:]
    paths = [(STANDARD, ANCESTRAL), (MEDIAN_CHAIN, MIDPOINT), (MEDIAN_CHAIN, PAIR)]
    chosen: list[StudyWalk] = []
    of_hybrid: list[StudyWalk] = []
    for seed in range(options["num_sampled"]):
        own = [c for c in cells if c.seed == seed and c.loss == first]
        main = {c.arm: c for c in own if c.clips != FROZEN}
        for arm, walks_of_arm in ((BASE, chosen), (HYBRID, of_hybrid)):
            if arm in main:
                walks_of_arm += [
                    StudyWalk(main[arm], *path, count) for count in evaluations for path in paths
                ]
        if MEDIAN in main:
            chosen += [StudyWalk(main[MEDIAN], *own_path(MEDIAN), count) for count in long]
        chosen += [
            StudyWalk(cell, *own_path(cell.arm), OF_MEMORY) for cell in own if cell.clips == FROZEN
        ]
    once = [c for c in cells if (c.arm, c.loss, c.seed) == (BASE, first, 0) and c.clips != FROZEN]
    for cell in once:
        for count in evaluations:
            chosen += [StudyWalk(cell, STANDARD, name, count) for name in ("ddim", "unipc")]
            chosen.append(StudyWalk(cell, STANDARD, "ddim", count, "tangent"))
            chosen.append(StudyWalk(cell, MEDIAN_CHAIN, ANCESTRAL, count))
    return chosen + of_hybrid


def path_of(walk: StudyWalk, directory: Path) -> Path:
    """Return the file of a walk's cards."""
    return run_of(walk.cell, directory) / "walks" / f"{walk.name}.json"


def sample_walks(
    trained: list[Cell], options: Node, directory: Path, device: torch.device, deadline: float
) -> None:
    """Draw and measure what is not measured yet, of cells that are trained.

    Args:
        deadline: of time.monotonic(), after which no walk is begun.
    """
    planned = walks(trained, options)
    left = [walk for walk in planned if not path_of(walk, directory).exists()]
    print(f"{len(planned)} walks, {len(planned) - len(left)} measured before", flush=True)
    measure = walk_measure(options, directory, device)
    for number, walk in enumerate(left):
        if time.monotonic() > deadline:
            print(f"time is up: {len(left) - number} walks are left out")
            return
        start = time.monotonic()
        cards = measure(walk)
        seconds = time.monotonic() - start
        numbers = ", ".join(f"{card.name} {card.value:.3g}" for card in cards)
        print(f"[{number}] {walk.cell.name} {walk.name}: {numbers} ({seconds:.0f} s)", flush=True)


def walk_measure(
    options: Node, directory: Path, device: torch.device
) -> Callable[[StudyWalk], list[Card]]:
    """Return what draws a walk's samples, writes their cards and the first clips, and returns the
    cards; clips and their features are read once for each set of clips.
    """

    @lru_cache(maxsize=1)
    def load(cell: Cell) -> tuple[Run, Denoiser]:
        run = find_run(str(run_of(cell, directory)), directory)
        return run, choose_denoiser(run, "ema")[0].to(device)

    @cache
    def process(cell: Cell, chain: str) -> GaussianProcess:
        own = words(cell, options, str(directory))
        others = [word for word in own if not word.startswith("model=")]
        config = resolved(composed_job("config", [*others, f"model={chain}"]).cfg)
        with user_errors("model"):
            built: GaussianProcess = instantiate(
                config["model"]["denoiser"]["process"], _convert_="all"
            )
        return built

    references: dict[str, Reference] = {}
    measures = cache(partial(study_measures, options))

    def measure(walk: StudyWalk) -> list[Card]:
        cell = walk.cell
        run, denoiser = load(cell)
        denoiser.process = process(cell, walk.chain)
        if cell.clips not in references:
            references[cell.clips] = Reference(open_data(run, {}), BATCH_SIZE)
        subject = Subject(
            denoiser,
            references[cell.clips],
            build_walk(walk),
            device,
            options["num_samples"],
            cell.seed,
        )
        facts = {"checkpoint": str(run.checkpoint), "chain": walk.chain}
        cards = []
        for key, each in measures(cell.clips).items():
            with user_errors(key):
                cards += cards_of(each, subject, each(subject), facts, {})
        path = path_of(walk, directory)
        path.parent.mkdir(exist_ok=True)
        np.save(path.with_suffix(".npy"), subject.samples[:NUM_KEPT].numpy())
        write_cards(cards, path)  # the last: a walk with it is complete
        return cards

    return measure


def study_measures(options: Node, clips: str) -> dict[str, Measure]:
    """Return the measures of samples; those of digits where clips are digits."""
    built: dict[str, Measure] = {}
    for extractor in options["extractors"]:
        chosen = ["measure=quality", f"extractor={extractor}"]
        (quality,) = build_measures(_measures(chosen)).values()
        quality = cast(DistanceMeasure, quality)
        quality.num_subsamples = 50  # intervals over clips are the smaller part
        built[f"extractor={extractor}"] = quality
    more = ["memorisation", *(["digit_agreement"] if clips in (STREAM, FROZEN) else [])]
    return built | build_measures(_measures([f"measure=[{','.join(more)}]"]))


def _measures(chosen: list[str]) -> Node:
    node: Node = resolved(compose("evaluate", ["checkpoint=any", *chosen]))["measure"]
    return node


def build_walk(walk: StudyWalk) -> Sampler:
    """Return the sampler of a walk."""
    chosen = [f"sampler.num_evaluations={walk.evaluations}"]
    chosen += [f"sampler/grid={walk.grid}"] if walk.grid else []
    return build_sampler(sampler_node(walk.sampler, *chosen))

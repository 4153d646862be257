"""What the study trains: cells of an arm, a loss, a set of clips and a seed, by importance.

A study that is stopped at any time leaves its first cells: those of H1, then of H3, of the other
loss, of H4, and then the arms that are reported without a test.
"""

from math import ceil
from typing import NamedTuple

from ddpm_lightning.run.config.check import Node, check_options
from ddpm_lightning.run.config.errors import UserError
from ddpm_lightning.run.config.paste import hydra_word
from ddpm_lightning.run.config.words import options as options_of

BASE, HYBRID, MEDIAN = "cosine", "hybrid", "median_hybrid"  # the arms that the hypotheses name
STREAM, FROZEN, OWN = "stream", "frozen", "own"  # sets of clips
NUM_FROZEN = 1000
NUM_CHECKPOINTS = 5  # of a run, so it has so many steps at least
BATCH_SIZE = 4  # of conf/experiment/study.yaml


class Cell(NamedTuple):
    """One training. clips: the name of their set."""

    arm: str
    loss: str
    clips: str
    seed: int

    @property
    def name(self) -> str:
        return "-".join(map(str, (self.clips, self.arm, self.loss, self.seed)))


def check_plan(options: Node) -> None:
    """Raise UserError for arms, losses or extractors that are not there, or too few seeds."""
    check_options("study", options)
    known = {
        "arms": list(options["words"]),
        "losses": options_of("loss"),
        "extractors": options_of("extractor"),
    }
    for key, names in known.items():
        if unknown := [name for name in options[key] if name not in names]:
            raise UserError(
                f"study.{key}: {unknown[0]} is not there; choose from {', '.join(names)}"
            )
    if options["num_sampled"] > options["num_seeds"]:
        raise UserError(
            f"study.num_sampled={options['num_sampled']} is more than the "
            f"study.num_seeds={options['num_seeds']} that are trained"
        )


def cells(options: Node) -> list[Cell]:
    """Return all cells, in the order of their importance."""
    arms, losses = options["arms"], options["losses"]
    seeds, sampled = range(options["num_seeds"]), range(options["num_sampled"])
    rest = seeds[options["num_sampled"] :]
    main = STREAM if options["data"] is None else OWN
    tested = [arm for arm in (BASE, HYBRID) if arm in arms]
    median = [arm for arm in (MEDIAN,) if arm in arms]
    others = [arm for arm in arms if arm not in (*tested, *median)]
    first, *later = losses
    steps = [
        (tested, first, main, seeds),
        (median, first, main, sampled),
        *((tested, loss, main, sampled) for loss in later),
        *([(tested + median, first, FROZEN, sampled)] if main == STREAM else []),
        *((tested, loss, main, rest) for loss in later),
        (others, first, main, seeds),
        *((others, loss, main, seeds) for loss in later),
    ]
    return [
        Cell(arm, loss, clips, seed)
        for chosen, loss, clips, of_step in steps
        for seed in of_step
        for arm in chosen
    ]


def words(cell: Cell, options: Node, directory: str) -> list[str]:
    """Return the words of train.py that train a cell.

    Args:
        directory: of the study, in which clips are kept.
    """
    steps = options["steps"]
    return [
        "experiment=study",
        *options["words"][cell.arm],
        f"loss={cell.loss}",
        f"seed={cell.seed}",
        f"trainer.max_steps={steps}",
        f"trainer.val_check_interval={steps // NUM_CHECKPOINTS}",
        "condition=none",
        "~callbacks.samples",  # the study draws its own
        f"run_name={cell.name}",
        *clip_words(cell.clips, options, directory),
        *options["more"],
    ]


def clip_words(clips: str, options: Node, directory: str) -> list[str]:
    """Return the words of train.py that choose a set of clips.

    A stream is as long as a training: no clip is seen twice.
    """
    cache = hydra_word("data.cache_path", f"{directory}/clips/cache")
    if clips == OWN:
        return ["data=gif_folder", hydra_word("data.path", options["data"]), cache]
    held_out = options["num_held_out"]
    num_train = NUM_FROZEN if clips == FROZEN else options["steps"] * BATCH_SIZE
    num_clips = ceil(1.02 * num_train) + held_out  # which are split by chance
    return [
        f"data.source.num_clips={num_clips}",
        f"data.val_fraction={held_out / num_clips:.4f}",
        f"data.source.seed={int(clips == FROZEN)}",
        hydra_word("data.path", f"{directory}/clips/{clips}"),
        cache,
    ]

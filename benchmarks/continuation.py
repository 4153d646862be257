"""Going on with a clip: does the rest keep the digit, its motion and its brightness?

    python -m benchmarks.continuation outputs/RUN [NUM_CLIPS [KEY=VALUE ..]]

Of held-out moving digits the first half is given (keep=0:4 of 8). Printed, each with its standard
error: the share of the other frames that a classifier reads as the digit of the given ones, beside
that of real clips; how far each frame's digit is from where the real clip has it, in pixels of the
canvas, beside a digit that stands still; and, of 64 frames rolled out, how far the mean brightness
drifts from the given frames to the last eight, in grey levels, and what share of all frames shows
the digit. Writes continued.gif, and continued.png with the given frames on the left. Keys are of
the sampler, dpmpp_2m_sde of the run by default; weight=W asks for the label of each clip with
classifier-free guidance, without it nothing is asked for.
"""

import sys
from pathlib import Path

import torch
from torch import Tensor

from ddpm_lightning.denoiser import Estimator
from ddpm_lightning.evaluation.digits import digit_positions, read_digits
from ddpm_lightning.evaluation.measures.memorisation import strip
from ddpm_lightning.guidances.classifier_free import ClassifierFree
from ddpm_lightning.guidances.none import NoGuidance
from ddpm_lightning.level import Level
from ddpm_lightning.likelihood.base import mean_and_error
from ddpm_lightning.plots.films import save_grid
from ddpm_lightning.plots.stills import write_png
from ddpm_lightning.rollout import Plan, roll_out
from ddpm_lightning.run.commands.continuation import Continuation, is_by_frame
from ddpm_lightning.run.config.build import build_data, build_sampler
from ddpm_lightning.run.directory.checkpoint import choose_denoiser, find_run
from ddpm_lightning.samplers.base import Sampler
from ddpm_lightning.samplers.noise import per_sample_generators

LONG = 64  # frames
LEVEL = Level.at(torch.tensor(6.0, dtype=torch.float64))


def continued(
    estimator: Estimator, sampler: Sampler, real: Tensor, by_frame: bool, num_frames: int
) -> Tensor:
    """Return clips uint8 (B, num_frames, H, W, C) that begin with half of the real ones."""
    window = real.shape[1]
    given = window // 2
    x_0 = estimator.statistics.standardise(real[:, :given])
    clip = torch.zeros(*x_0.shape[:2], num_frames, *x_0.shape[3:])
    clip[:, :, :given] = x_0
    mask = (torch.arange(num_frames) < given)[:, None, None]
    plan = Plan(clip, mask, window)
    known = Continuation(plan, LEVEL, by_frame, invert=False, description="").make_known
    generators = per_sample_generators(0, range(len(real)))
    return estimator.statistics.restore(roll_out(sampler, estimator, plan, generators, known))


def keeps_digit(clips: Tensor, num_given: int) -> tuple[float, float]:
    """Return the share of the frames after the first num_given that show the digit of those."""
    shown = read_digits(clips)
    digits = shown[:, :num_given].mode(1, keepdim=True).values
    return mean_and_error((shown[:, num_given:] == digits).double().mean(1))


def position_errors(clips: Tensor, real: Tensor) -> list[tuple[float, float]]:
    """Return how far the digit is from where real clips have it, in pixels, for each frame."""
    distance = (digit_positions(clips) - digit_positions(real)).norm(dim=-1)  # (N, F)
    return [mean_and_error(of_frame) for of_frame in distance.T]


def row(name: str, values: list[tuple[float, float]]) -> None:
    print(
        f"{name:<34}" + " ".join(f"{mean:.3f}+-{error:.3f}" for mean, error in values), flush=True
    )


def main() -> None:
    directory, number = sys.argv[1], int((sys.argv[2:] or ["64"])[0])
    run = find_run(directory, Path("outputs"))
    denoiser, _, step = choose_denoiser(run, "ema")
    denoiser.requires_grad_(False)
    by_frame = is_by_frame(run.config)
    keys = dict(word.split("=") for word in sys.argv[3:])
    weight = float(keys.pop("weight", 0))
    sampler = build_sampler(
        run.config["callbacks"]["samples"]["sampler"] | {k: int(v) for k, v in keys.items()}
    )
    data = build_data(run.config["data"])
    data.load()
    batches = [data.val_set[i] for i in range(min(number, len(data.val_set)))]
    real = torch.cat([batch.clip for batch in batches])
    asked = [known if weight else {} for batch in batches for known in batch.annotations]
    given = real.shape[1] // 2
    print(f"{run.checkpoint}, step {step}, {len(real)} clips, {given} frames given, {by_frame=}")
    guidance = ClassifierFree(weight) if weight else NoGuidance()
    with torch.no_grad():
        estimator = guidance.guide(denoiser, asked)
    clips = continued(estimator, sampler, real, by_frame, real.shape[1])
    save_grid(clips[:16], Path("continued.gif"), data.format.fps)
    rows = [torch.cat([strip(c[:given]), strip(c[given:])], dim=1) for c in clips[:6]]
    write_png(torch.cat(rows), Path("continued.png"))
    row("shows the digit", [keeps_digit(clips, given)])
    row("  of real clips", [keeps_digit(real, given)])
    still = torch.cat([real[:, :given], real[:, given - 1 : given].expand_as(real[:, given:])], 1)
    row("pixels off, by frame", position_errors(clips, real)[given:])
    row("  of a digit that stands still", position_errors(still, real)[given:])
    long = continued(estimator, sampler, real, by_frame, LONG)
    save_grid(long[:16], Path("continued_64.gif"), data.format.fps)
    brightness = long.double().mean((2, 3, 4))  # (B, F)
    drift = brightness[:, -8:].mean(1) - brightness[:, :given].mean(1)
    row(f"grey levels of drift in {LONG} frames", [mean_and_error(drift)])
    for first in range(8, LONG, 8):
        shown = torch.cat([long[:, :given], long[:, first : first + 8]], 1)
        row(f"shows the digit, {first} to {first + 7}", [keeps_digit(shown, given)])


if __name__ == "__main__":
    main()

"""What sample.py is given besides a run: init=my.gif and what of it is kept.

    init=my.gif keep=0:4          prediction: the first four frames, the others are sampled
    init=my.gif keep=[0,-1]       interpolation: the GIF's first and last frame, at both ends
    init=my.gif mask=mask.png     inpainting: what is white in the mask is sampled, in all frames
    init=my.gif strength=0.6      another like it: the last 0.6 of the steps, from it with noise
    init=my.gif invert=true       the noise that leads to it, and from there under another label
    frames=64, loop=true          more frames than the run's clips have; the end meets the beginning

The GIF goes through the data's decoder and rules: its clock, the area filter, the centre of it.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ddpm_lightning.conditions.joint import Conditions
from ddpm_lightning.data.clip import ClipFormat
from ddpm_lightning.data.decode import Decoded, Recipe, decode
from ddpm_lightning.data.gif_blocks import DEFAULT_LIMITS
from ddpm_lightning.data.sources.folder import read_picture
from ddpm_lightning.denoiser import Estimator
from ddpm_lightning.known import Known, KnownFrames, KnownPixels
from ddpm_lightning.level import Level, log_snr_floor
from ddpm_lightning.rollout import Plan, roll_out
from ddpm_lightning.run.commands.kept import kept_frames, read_mask
from ddpm_lightning.run.config.check import Node
from ddpm_lightning.run.config.errors import UserError, user_errors
from ddpm_lightning.samplers.base import Sampler
from ddpm_lightning.samplers.inversion import invert
from ddpm_lightning.samplers.noise import noise_source
from ddpm_lightning.samplers.walk import State
from ddpm_lightning.statistics import Statistics
from ddpm_lightning.times.frames import CONTEXT_LOG_SNR

TOLERANCE = 1e-3  # of an inversion, relative: float32 and a trained network settle within it
LEAST_LOOP = 4  # frames of a chunk that can close a loop


class Continuation(NamedTuple):
    """How clips are sampled, and what is printed of it.

    known_level: at which given frames enter.   by_frame: the network knows a level for every frame.
    """

    plan: Plan
    known_level: Level
    by_frame: bool
    invert: bool
    description: str

    def sample(
        self,
        sampler: Sampler,
        estimator: Estimator,
        bare: Estimator,
        generators: Sequence[torch.Generator],
        device: torch.device,
        callback: Callable[[State], None] | None,
    ) -> Tensor:
        """Return clips (B, C, N, H, W), standardised.

        Args:
            bare: the estimator without any wish, by which a clip is inverted.
        """
        if not self.invert:
            clips = (sampler, estimator, self.plan, generators, self.make_known, device, callback)
            return roll_out(*clips)
        clip = self.plan.clip.to(device).expand(len(generators), -1, -1, -1, -1)
        times = sampler.times(estimator.process, log_snr_floor(clip.shape))
        with torch.no_grad():
            x = invert(bare, clip, times, TOLERANCE)
            draw = noise_source(clip.shape, generators, device)
            return sampler.walk(estimator, x, times, draw, callback)

    def make_known(self, estimator: Estimator, clip: Tensor, mask: Tensor, noise: Tensor) -> Known:
        """Return the estimator that knows what the mask (1, 1, F, H, W) marks; see roll_out."""
        whole = mask.all(-1, keepdim=True).all(-2, keepdim=True)
        if not self.by_frame:
            return KnownPixels(estimator, clip, mask, self.known_level)
        if torch.equal(whole.expand_as(mask), mask):
            return KnownFrames(estimator, clip, whole, self.known_level, noise)
        pixels = KnownPixels(estimator, clip, mask & ~whole, self.known_level)
        return KnownFrames(pixels, clip, whole, self.known_level, noise)


def continuation_of(
    config: Node, form: ClipFormat, statistics: Statistics, by_frame: bool
) -> Continuation:
    """Return what a command line asks for.

    Args:
        config: of sample.py.   form: of the run's clips.
        by_frame: whether the run was trained with times=frames.
    Raises:
        UserError: in one line.
    """
    _check_together(config)
    window, loop = form.num_frames, bool(config["loop"])
    num_frames = config["frames"] or (window + window // 2 if loop else window)
    if loop and (window < LEAST_LOOP or num_frames <= window):
        raise UserError(
            f"loop=true: a loop of {num_frames} frames has to be more than the {window} that the "
            f"run sees at once, which are at least {LEAST_LOOP}; add frames={window + window // 2}"
        )
    low, high = CONTEXT_LOG_SNR
    if not low <= config["known_log_snr"] <= high:
        raise UserError(
            f"known_log_snr must lie in {low:g} to {high:g}, where times=frames trains, got "
            f"{config['known_log_snr']}; 6 forgives small errors"
        )
    clip = torch.zeros(num_frames, form.height, form.width, form.channels, dtype=torch.uint8)
    mask = torch.zeros(num_frames, 1, 1, dtype=torch.bool)
    lines: list[str] = []
    if config["init"]:
        clip, mask = _read_init(config, form, num_frames, lines)
    plan = Plan(
        statistics.standardise(clip[None].to(statistics.mean.device)).cpu(),
        mask,
        min(window, num_frames),
        loop,
        1.0 if config["strength"] is None else config["strength"],
    )
    if not (chunks := plan.chunks()):
        raise UserError(
            f"{config['init']} gives all {num_frames} frames, so there is nothing to sample; add "
            "keep=0:4, say, mask=, strength=, or more frames"
        )
    if not by_frame and (mask.any() or len(chunks) > 1):
        lines.append(
            "  known          by the derivative of the estimate, at about seven times the cost; a "
            "run that is trained with times=frames does it better, at none"
        )
    level = Level.at(torch.tensor(config["known_log_snr"], dtype=torch.float64))
    description = "".join(f"{line}\n" for line in lines)
    return Continuation(plan, level, by_frame, bool(config["invert"]), description)


def is_by_frame(run_config: Node) -> bool:
    """Return whether a run was trained with a level for every frame."""
    times = run_config["model"].get("times") or {}
    return str(times.get("_target_", "")).endswith(".FrameTimes")


def _check_together(config: Node) -> None:
    if not config["init"]:
        for key in ("keep", "mask", "strength", "invert"):
            if config[key]:
                raise UserError(f"{key}={config[key]} needs a GIF to start from; add init=my.gif")
    if config["invert"]:
        for key in ("keep", "mask", "strength", "loop", "frames"):
            if config[key]:
                raise UserError(f"invert=true leads back a whole clip; leave {key} away")


def _read_init(
    config: Node, form: ClipFormat, num_frames: int, lines: list[str]
) -> tuple[Tensor, Tensor]:
    """Return the clip (N, H, W, C) of num_frames, and what of it is known; append to lines."""
    path = Path(str(config["init"]))
    decoded = read_gif(path, form)
    frames = torch.from_numpy(decoded.clip)
    count = len(frames)
    lines.append(
        f"  given          {path}: {decoded.num_gif_frames} frames of {decoded.width} x "
        f"{decoded.height}, as {count} of {form.width} x {form.height} at {form.fps:g} a second"
    )
    clip = frames[torch.arange(num_frames) % count]  # short ones loop, as in training
    mask = torch.zeros(num_frames, 1, 1, dtype=torch.bool)
    is_whole = config["mask"] or config["strength"] is not None or config["invert"]
    if config["keep"] is not None or not is_whole:
        kept = kept_frames(config["keep"], count, num_frames, path.name)
        for position, frame in kept.items():
            clip[position], mask[position] = frames[frame], True
        numbers = ", ".join(map(str, kept))
        lines.append(f"  kept           frames {numbers} of {num_frames} (0 is the first)")
    if config["mask"]:
        pixels = read_mask(Path(str(config["mask"])), form, (decoded.height, decoded.width))
        mask = mask | pixels
        share = 100 * float(pixels.double().mean())
        lines.append(f"  kept           {share:.0f} % of all pixels, black in {config['mask']}")
    return clip, mask


def read_gif(path: Path, form: ClipFormat) -> Decoded:
    """Return a GIF of the user's as a clip of the run's form, with all its frames."""
    with user_errors(f"init={path}"):
        recipe = Recipe(form.height, form.width, form.fps, form.channels, limits=DEFAULT_LIMITS)
        return decode(read_picture(path), recipe)


def check_invertible(stochastic: bool, conditions: Conditions) -> None:
    """Raise UserError where a sampler draws noise on its way, or where no clip was trained on
    without the wishes that a walk back leaves out.
    """
    if conditions.wishes and not conditions.dropout:
        raise UserError(
            f"invert=true leads back without {' and '.join(conditions.wishes)}, which this run was "
            "never trained without (model.denoiser.condition_dropout=0); strength=0.6 works"
        )
    if stochastic:
        raise UserError(
            "invert=true leads back along a walk without fresh noise, and this sampler draws some; "
            "add sampler=ddim sampler/thresholding=none"
        )

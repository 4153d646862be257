"""The loss that is trained, on fixed pairs of a time and noise.

What train/loss is, on held-out clips: weighting, objective and the law of times are training's
own. A perfect denoiser scores differently under each of them, so it compares runs that share them.
"""

import torch
from pydantic import PositiveInt

from ddpm_lightning.evaluation.losses import fixed_losses
from ddpm_lightning.evaluation.measure import LEARNING, Measure, Result, mean_of_clips
from ddpm_lightning.evaluation.subject import Subject


class TrainedLoss(Measure):
    """The mean over held-out clips of the loss that is trained.

    A clip's pairs depend on its place in the data alone.

    Args:
        num_draws: pairs of a time and noise for each clip.
    """

    name = "trained_loss"
    unit = "of the loss"
    less_is_better = True
    comparable_across = LEARNING

    def __init__(self, num_draws: PositiveInt = 16) -> None:
        self.num_draws = num_draws

    @torch.no_grad()
    def __call__(self, subject: Subject) -> dict[str, Result]:
        assert subject.training is not None
        loss, times = subject.training
        of_clips = []  # (draws, B)
        for x_0, index, conditions in subject.held_out():
            draws = fixed_losses(
                subject.denoiser, loss, times, x_0, index, self.num_draws, **conditions
            )
            of_clips.append(torch.stack([losses for _, losses in draws]))
        losses = torch.cat(of_clips, dim=1).mean(0)
        return {"loss": mean_of_clips(losses, num_clips=len(losses))}

"""Bits per value of held-out clips: by the variational bound, and by the probability-flow ODE."""

from pydantic import PositiveInt

from ddpm_lightning.evaluation.likelihoods import measure
from ddpm_lightning.evaluation.measure import EVERYTHING_BUT_DATA, Measure, Result, mean_of_clips
from ddpm_lightning.evaluation.subject import Subject
from ddpm_lightning.likelihood.base import Likelihood
from ddpm_lightning.likelihood.flow import FlowLikelihood
from ddpm_lightning.likelihood.variational import VariationalBound

BOUND, FLOW = VariationalBound(), FlowLikelihood()


class Bits(Measure):
    """How many bits a value of a held-out clip takes under the denoiser's model.

    Args:
        bound: an upper bound on it; None leaves it out.
        flow: an estimate of it; None leaves it out.
        num_clips: that are drawn from the held-out ones.
    """

    name = "bits"
    unit = "bits per value"
    less_is_better = True
    comparable_across = EVERYTHING_BUT_DATA

    def __init__(
        self,
        bound: Likelihood | None = BOUND,
        flow: Likelihood | None = FLOW,
        num_clips: PositiveInt = 16,
    ) -> None:
        self.likelihoods = {
            name: likelihood
            for name, likelihood in (("bound", bound), ("flow", flow))
            if likelihood is not None
        }
        self.num_clips = num_clips

    def __call__(self, subject: Subject) -> dict[str, Result]:
        return {
            name: self._bits(likelihood, subject) for name, likelihood in self.likelihoods.items()
        }

    def _bits(self, likelihood: Likelihood, subject: Subject) -> Result:
        batches = subject.reference.batches("val")
        nats = measure(likelihood, subject.denoiser, batches, self.num_clips, subject.device)
        return mean_of_clips(
            nats.bits,
            num_clips=len(nats.bits),
            nats_per_value=float(nats.total.mean()),
            terms_in_nats={name: float(term.mean()) for name, term in nats.terms.items()},
        )

"""Errors at fixed levels of log-SNR: the same quantity for every process, schedule and objective.

`levels/error` is what training calls val/error; see evaluation.levels.
"""

from math import isnan

from ddpm_lightning.evaluation.levels import LEVELS, covered, measure_levels
from ddpm_lightning.evaluation.measure import EVERYTHING_BUT_DATA, Measure, Result, around
from ddpm_lightning.evaluation.report import aligned
from ddpm_lightning.evaluation.subject import Subject
from ddpm_lightning.level import log_snr_floor

ERRORS = ("x_0", "noise", "velocity")


class Levels(Measure):
    """The mean squared error of x_0, noise and velocity at 33 levels, and its weighted mean."""

    name = "levels"
    unit = "squared error"
    less_is_better = True
    comparable_across = EVERYTHING_BUT_DATA

    def __call__(self, subject: Subject) -> dict[str, Result]:
        denoiser, reference = subject.denoiser, subject.reference
        num_clips = len(reference.held_out)
        errors = measure_levels(denoiser, reference.batches("val"), num_clips, subject.device)
        floor = log_snr_floor(reference.shape(1))
        assert subject.training is not None
        trained = LEVELS[covered(denoiser.process, subject.training.times, floor)].tolist()
        rows = [{**row._asdict(), "trained": row.log_snr in trained} for row in errors.by_level()]
        value, error = errors.mean(), errors.standard_error()
        facts = {"num_clips": num_clips, "by_level": rows}
        if isnan(error):
            return {"error": Result(value, facts=facts)}
        return {"error": Result(value, error, around(value, error, low=0.0), facts=facts)}

    def details(self, results: dict[str, Result]) -> str:
        """Return the errors by level; a star marks levels that the run was not trained at."""
        rows = [
            [
                f"{row['log_snr']:+6.2f}{'' if row['trained'] else ' *'}",
                str(row["num_triples"]),
                *(f"{row[name]:.3g}" for name in ERRORS),
            ]
            for row in results["error"].facts["by_level"]
        ]
        table = aligned(["log-SNR", "pairs", *(f"{name} error" for name in ERRORS)], rows)
        starred = any(not row["trained"] for row in results["error"].facts["by_level"])
        return table + ("\n* not trained at" if starred else "")

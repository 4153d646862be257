"""Schedulers of diffusers, of which a checkpoint needs two things: its chain's betas, and what its
network predicts. How theirs would walk is not read: the walk is our sampler's.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, Field, FiniteFloat

from ddpm_lightning.networks.diffusers2d import import_diffusers
from ddpm_lightning.noise.base import MAX_STEPS
from ddpm_lightning.objectives.base import Objective
from ddpm_lightning.processes.base import GaussianProcess
from ddpm_lightning.run.config.check import Node
from ddpm_lightning.run.config.errors import UserError, user_errors
from ddpm_lightning.run.exchange.json_file import parsed

# Those of the standard chain, with the same options for it.
SCHEDULERS = (
    *("DDPMScheduler", "DDIMScheduler", "PNDMScheduler"),
    *("DPMSolverMultistepScheduler", "UniPCMultistepScheduler"),
)
OBJECTIVES = {
    "epsilon": "ddpm_lightning.objectives.epsilon.EpsilonObjective",
    "sample": "ddpm_lightning.objectives.clean.CleanObjective",
    "v_prediction": "ddpm_lightning.objectives.velocity.VelocityObjective",
}
_NAMED = ("linear", "scaled_linear", "squaredcos_cap_v2")  # those that are written by name
_MAX_BETA = 0.999999  # a last beta of 1, as at zero terminal SNR, leaves nothing to walk back from


class Chain(BaseModel):
    """The options of theirs that say which chain a network was trained on; defaults are theirs."""

    num_train_timesteps: Annotated[int, Field(ge=2, le=MAX_STEPS)] = 1000
    beta_start: FiniteFloat = 0.0001
    beta_end: FiniteFloat = 0.02
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"] = "linear"
    trained_betas: (
        Annotated[list[FiniteFloat], Field(min_length=2, max_length=MAX_STEPS)] | None
    ) = None
    rescale_betas_zero_snr: bool = False
    prediction_type: Literal["epsilon", "sample", "v_prediction"] = "epsilon"
    use_flow_sigmas: Literal[False] = False

    predict_epsilon: Literal[True] = True  # of old files; what they mean by False is "sample"


def read_scheduler(config: dict[str, Any], path: Path) -> tuple[Node, Node]:
    """Return the nodes of the schedule and of the objective that a scheduler's configuration means.

    Args:
        config: the content of scheduler_config.json.   path: of that file.
    Raises:
        UserError: for one whose chain is not ours; it is named.
    """
    name = config.get("_class_name")
    if name not in SCHEDULERS:
        raise UserError(
            f"{path}: {name!s:.80} cannot be reproduced, whose chain is another; those of "
            f"{', '.join(SCHEDULERS)} can"
        )
    chain = parsed(Chain, config, path)
    with user_errors(str(path)):
        betas = _betas(chain)
        if not 0 <= min(betas) <= max(betas) <= 1:
            raise ValueError(f"betas must lie in [0, 1], got {min(betas):.4g} to {max(betas):.4g}")
    schedule = {
        "_target_": "ddpm_lightning.noise.table.TableSchedule",
        "betas": [min(beta, _MAX_BETA) for beta in betas],
    }
    return schedule, {"_target_": OBJECTIVES[chain.prediction_type]}


def _betas(chain: Chain) -> list[float]:
    options = chain.model_dump(exclude={"use_flow_sigmas", "predict_epsilon"})
    if chain.trained_betas is not None:
        options["num_train_timesteps"] = len(chain.trained_betas)
    betas: list[float] = import_diffusers().DDPMScheduler(**options).betas.double().tolist()
    return betas


def build_scheduler(process: GaussianProcess, objective: Objective) -> Any:
    """Return the DDPMScheduler of a process and an objective, its betas by name if they have one.

    Raises:
        UserError: for a process that does not preserve variance, and an objective, that no
            scheduler of theirs has, and a chain that theirs would divide by 0 on.
    """
    kind = type(objective)
    path = f"{kind.__module__}.{kind.__qualname__}"
    prediction_type = next((theirs for theirs, ours in OBJECTIVES.items() if ours == path), None)
    if prediction_type is None:
        raise UserError(
            f"no scheduler of diffusers has {kind.__name__}; theirs are epsilon, clean and velocity"
        )
    alpha, sigma, _ = process.level(torch.arange(process.num_steps + 1))
    if (alpha.square() + sigma.square() - 1).abs().max() > 1e-9:
        raise UserError(
            f"no scheduler of diffusers has {type(process).__name__}, which does not preserve "
            "variance; format=torch_export takes the network along without its process"
        )
    betas = (1 - (alpha[1:] / alpha[:-1]).square()).clamp(max=_MAX_BETA)
    options: Node = {"num_train_timesteps": len(betas), "prediction_type": prediction_type}
    ends: Node = {"beta_start": float(betas[0]), "beta_end": float(betas[-1])}
    scheduler_class = import_diffusers().DDPMScheduler
    for name in _NAMED:
        scheduler = scheduler_class(**options, **ends, beta_schedule=name)
        if torch.allclose(scheduler.betas.double(), betas, rtol=1e-5, atol=0):
            return scheduler
    scheduler = scheduler_class(**options, trained_betas=betas.tolist())
    if num_zeros := int((scheduler.alphas_cumprod == 0).sum()):
        raise UserError(
            f"no scheduler of diffusers can walk this chain: alphas_cumprod, in float32, is 0 at "
            f"{num_zeros} of its {len(betas)} steps; format=torch_export takes the network along "
            "without its process"
        )
    return scheduler

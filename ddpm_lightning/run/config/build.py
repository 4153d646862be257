"""Builds what training, sampling and evaluating share from a configuration, without Lightning."""

from hydra import compose
from hydra.utils import instantiate

from ddpm_lightning.conditions.base import Condition
from ddpm_lightning.data.clips.base import ClipData
from ddpm_lightning.denoiser import Denoiser
from ddpm_lightning.guidances.base import Guidance
from ddpm_lightning.run.config.check import STORED_TARGETS, Node, check_without_lightning, resolved
from ddpm_lightning.run.config.errors import user_errors
from ddpm_lightning.samplers.base import Sampler


def build_conditions(conditions: Node | None) -> dict[str, Condition]:
    """Build conditions by name; UserError where a value is refused."""
    with user_errors("condition"):
        members: dict[str, Condition] = instantiate(conditions or {}, _convert_="all")
    return members


def build_denoiser(model: Node, conditions: dict[str, Condition] | None = None) -> Denoiser:
    """Build the denoiser of a node `model`, around conditions if they are built already; UserError
    where a value is refused.
    """
    node = dict(model["denoiser"])
    own = node.pop("conditions", None)
    if conditions is None:
        conditions = build_conditions(own)
    with user_errors("model"):
        make_denoiser = instantiate(node, _partial_=True, _convert_="all")
        denoiser: Denoiser = make_denoiser(conditions=conditions)
    return denoiser


def build_data(data: Node) -> ClipData:
    """Build the data of a run, its store still closed; UserError where a value is refused."""
    with user_errors("data"):
        clips: ClipData = instantiate(data, _convert_="all")
    return clips


def build_guidance(guidance: Node) -> Guidance:
    """Build guidance; UserError where a value is refused."""
    with user_errors("guidance"):
        built: Guidance = instantiate(guidance, _convert_="all")
    return built


def build_sampler(sampler: Node) -> Sampler:
    """Build a sampler, of a command line or of a stored configuration; UserError as above."""
    check_without_lightning({"sampler": sampler}, STORED_TARGETS)
    with user_errors("sampler"):
        built: Sampler = instantiate(sampler, _convert_="all")
    return built


def sampler_node(name: str, *words: str) -> Node:
    """Return the node of a sampler of conf/ by its name, under a command that Hydra composes."""
    node: Node = resolved(compose("sample", ["checkpoint=any", f"sampler={name}", *words]))
    return dict(node["sampler"])

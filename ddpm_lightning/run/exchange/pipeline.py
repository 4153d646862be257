"""A pipeline folder of diffusers in the place of a run: model_index.json, unet/ and scheduler/.

It becomes what a run is, a configuration and a denoiser: the standard chain of its scheduler,
clips of one frame, [-1, 1] as it was trained, and weights that diffusers reads: safetensors, or
.bin with weights_only. Older folders, such as google/ddpm-ema-celebahq-256, have the files of unet/
and scheduler/ beside model_index.json.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveInt
from torch import nn

from ddpm_lightning.denoiser import Denoiser
from ddpm_lightning.networks.diffusers2d import build_unet, import_diffusers
from ddpm_lightning.run.config.build import build_denoiser
from ddpm_lightning.run.config.check import Node
from ddpm_lightning.run.config.errors import UserError, user_errors
from ddpm_lightning.run.directory.checkpoint import Run, check_stored
from ddpm_lightning.run.exchange.json_file import parsed, read_object
from ddpm_lightning.run.exchange.scheduler import read_scheduler

INDEX = "model_index.json"
_WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
_MAX_BYTES = 16 * 2**30  # of weights
_LEAST_BYTES = 2  # of a weight
_Width = Annotated[int, Field(ge=1, le=8192)]


class UNetConfig(BaseModel):
    """What the options of UNet2DModel must be to be sampled by; other options may be anything."""

    model_config = ConfigDict(extra="allow")

    sample_size: Annotated[int, Field(ge=1, le=4096)] | tuple[PositiveInt, PositiveInt]
    in_channels: Literal[1, 3] = 3
    out_channels: Literal[1, 3] = 3
    center_input_sample: Literal[False] = False
    time_embedding_type: Literal["positional"] = "positional"
    block_out_channels: Annotated[list[_Width], Field(max_length=16)] = [224, 448, 672, 896]
    layers_per_block: Annotated[int, Field(ge=1, le=32)] = 2
    class_embed_type: None = None
    num_class_embeds: None = None
    quantization_config: None = None


def is_pipeline(path: str) -> bool:
    """Return whether a checkpoint is a pipeline folder of diffusers."""
    return (Path(path) / INDEX).is_file()


def load_pipeline(path: str, weights: Any = None) -> tuple[Run, Denoiser]:
    """Return a pipeline folder as a run, and its denoiser in evaluation mode, on the CPU.

    Args:
        weights: that are asked for; there is one set, so None or ema, as by default.
    Raises:
        UserError: for a pipeline of another kind, and where a file is missing or damaged.
    """
    folder = Path(path)
    if weights not in (None, "ema"):
        raise UserError(f"{path} holds one set of weights; leave weights={weights} away")
    _check_kind(folder)
    file = _home(folder, "scheduler") / "scheduler_config.json"
    schedule, objective = read_scheduler(read_object(file), file)
    home = _home(folder, "unet")
    unet_config = read_object(home / "config.json")
    form = parsed(UNetConfig, unet_config, home / "config.json")
    arguments = {k: v for k, v in unet_config.items() if k[:1] != "_"}
    file = _weights_file(home)
    _check_size(arguments, file)
    config = _as_run(form, arguments, schedule, objective)
    check_stored(config, home / "config.json")
    denoiser = build_denoiser(config["model"])
    network = denoiser.network
    assert isinstance(network.unet, nn.Module)
    network.unet.load_state_dict(_read_weights(home, file))
    return Run(folder, file, config), denoiser.eval()


def _check_kind(folder: Path) -> None:
    index = read_object(folder / INDEX)
    parts = {k: v for k, v in index.items() if k[:1] != "_" and v not in (None, [None, None])}
    if set(parts) != {"unet", "scheduler"} or parts["unet"] != ["diffusers", "UNet2DModel"]:
        described = ", ".join(sorted(parts)) or "nothing"
        raise UserError(
            f"{folder} is a {index.get('_class_name')!s:.80} of {described:.200}; a pipeline of "
            "a UNet2DModel and a scheduler alone can be sampled, such as a DDPMPipeline"
        )


def _home(folder: Path, part: str) -> Path:
    """Return where the files of a part of a pipeline lie."""
    return folder / part if (folder / part).is_dir() else folder


def _weights_file(home: Path) -> Path:
    file = next((home / name for name in _WEIGHTS if (home / name).is_file()), None)
    if file is None:
        raise UserError(f"{home / _WEIGHTS[0]} is missing, and so is {_WEIGHTS[1]}")
    if (size := file.stat().st_size) > _MAX_BYTES:
        raise UserError(f"{file} has {size:,} bytes, more than {_MAX_BYTES:,} are not read")
    return file


def _check_size(arguments: Node, file: Path) -> None:
    """Raise UserError where a configuration asks for more memory than its weights take."""
    with user_errors(str(file.parent / "config.json")), torch.device("meta"):
        count = sum(p.numel() for p in build_unet(arguments).parameters())
    if (size := file.stat().st_size) < count * _LEAST_BYTES:
        raise UserError(
            f"{file} has {size:,} bytes, too few for the {count:,} weights that config.json asks "
            "for; is the download whole?"
        )


def _read_weights(home: Path, file: Path) -> dict[str, Any]:
    """Return the state of the UNet2DModel in a folder, float32, under the names of today."""
    try:
        unet, loading = import_diffusers().UNet2DModel.from_pretrained(
            str(home),
            local_files_only=True,
            use_safetensors=file.suffix == ".safetensors",
            low_cpu_mem_usage=False,
            output_loading_info=True,
        )
        for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
            if names := sorted(map(str, loading[problem])):
                raise ValueError(f"{problem.replace('_keys', '')} {names[0]}, {len(names)} in all")
        state: dict[str, Any] = unet.float().state_dict()
        if name := next((n for n, value in state.items() if not value.isfinite().all()), None):
            raise ValueError(f"{name} is not finite")
    except Exception as error:  # what diffusers and torch raise for foreign bytes has many types
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{file} does not fit its config.json, or is damaged: {reason:.300}"
        ) from error
    return state


def _as_run(form: UNetConfig, arguments: Node, schedule: Node, objective: Node) -> Node:
    """Return the configuration of a run with this network: model, data and sampler."""
    size = form.sample_size
    return {
        "model": {
            "denoiser": _node(
                "denoiser.Denoiser",
                network=_node(
                    "networks.diffusers2d.DiffusersUNet2D", unet=arguments, schedule=schedule
                ),
                process=_node("processes.standard.StandardProcess", schedule=schedule),
                objective=objective,
            ),
            "loss": _node("losses.simple.SimpleLoss"),
            "times": _node("times.uniform_t.UniformTime"),
        },
        "data": _node(
            "data.clips.source.SourceClips",
            source=_node("data.sources.folder.GifFolder", _partial_=True),
            size=size if isinstance(size, int) else list(size),
            num_frames=1,
            fps=1,
            channels=form.in_channels,
        ),
        "sampler": _node("samplers.dpmpp_2m.DPMpp2MSampler", eta=1.0),
    }


def _node(path: str, **options: Any) -> Node:
    return {"_target_": f"ddpm_lightning.{path}", **options}

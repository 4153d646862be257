"""python export.py: a trained denoiser for elsewhere.

format=safetensors     one file, which sample.py takes in place of a run
format=torch_export    a program that needs torch alone
format=diffusers       what diffusers loads, as far as it has an equivalent
push=ORG/NAME          any of them, with a model card, to huggingface.co
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from omegaconf import DictConfig

from ddpm_lightning.files.atomic import write_file
from ddpm_lightning.run.config.check import Node, check, resolved
from ddpm_lightning.run.config.errors import UserError, user_errors
from ddpm_lightning.run.config.paste import hydra_word, path_command
from ddpm_lightning.run.directory.checkpoint import FORM_KEYS
from ddpm_lightning.run.exchange.export_diffusers import write_diffusers
from ddpm_lightning.run.exchange.export_program import PROGRAM_SUFFIX, write_program
from ddpm_lightning.run.exchange.exported import SUFFIX, sealed
from ddpm_lightning.run.exchange.opened import Opened, open_checkpoint
from ddpm_lightning.run.exchange.push import check_repository, push, write_card


class Format(NamedTuple):
    """How a format is written.

    write: into a path, and returns lines that say what is there, and a line for the model card.
    suffix: of the file; none of a folder.
    """

    write: Callable[[Opened, Path], tuple[str, str]]
    suffix: str


def export(cfg: DictConfig) -> None:
    """Write the file or folder, and print where it is."""
    config = resolved(cfg)
    check(config)
    repository = config["push"]
    if repository is not None:
        check_repository(repository)
    opened = open_checkpoint(config)
    form = FORMATS[config["format"]]
    path = _path(config, opened, form)
    is_folder = repository is not None or not form.suffix
    with user_errors("output"):
        if is_folder and path.exists() and any(path.iterdir()):
            raise UserError(f"{path} already holds files; delete it, or choose another output")
    is_inside = repository is not None and form.suffix
    written, use = form.write(opened, path / f"model{form.suffix}" if is_inside else path)
    print(f"{opened.run.checkpoint} ({opened.origin})\n{written}")
    if repository is not None:
        with user_errors("output"):
            card = write_card(opened, path, repository.partition("/")[2], use)
        print(f"  model card     {card}", flush=True)
        print(f"  pushed to      {push(path, repository)}")


def _path(config: Node, opened: Opened, form: Format) -> Path:
    if config["output"]:
        return Path(config["output"])
    home = opened.run.directory
    if config["push"] is not None:
        return home / "hub"
    return home / (f"{opened.weights}{form.suffix}" if form.suffix else "diffusers")


def write_safetensors(opened: Opened, path: Path) -> tuple[str, str]:
    """Write what sample.py takes in place of a run; see Format for what is returned."""
    config = opened.run.config
    stored = {
        "model": {key: config["model"][key] for key in ("denoiser", "times")},
        "data": {key: config["data"][key] for key in FORM_KEYS},
    }
    metadata = {
        "config": json.dumps(stored),
        "step": "" if opened.step is None else str(opened.step),
        "weights": opened.weights,
    }
    tensors = {name: value.contiguous() for name, value in opened.denoiser.state_dict().items()}
    data = sealed(tensors, metadata)
    with user_errors("output"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, [data], len(data))
    weights = hydra_word("weights", opened.weights)
    written = (
        f"  file           {path}, {len(data):,} bytes\n"
        f"  sample from it {path_command('sample.py', 'checkpoint', path, weights)}"
    )
    return written, f"python sample.py checkpoint={path.name} {weights}"


FORMATS = {
    "safetensors": Format(write_safetensors, SUFFIX),
    "torch_export": Format(write_program, PROGRAM_SUFFIX),
    "diffusers": Format(write_diffusers, ""),
}

"""export.py push=ORG/NAME: a folder becomes a repository of huggingface.co, with a model card.

What is uploaded lies in the folder first, so that it can be read, and be uploaded by hand. The
card, README.md, is made from what a run directory holds: recipe, measures and a picture.
"""

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from ddpm_lightning.files.bounded import read_json
from ddpm_lightning.run.config.errors import RunFailed, UserError
from ddpm_lightning.run.directory.checkpoint import FORM_KEYS
from ddpm_lightning.run.exchange.opened import Opened

_MOST = 16  # entries of a list that are written out
_TAGS = ("ddpm_lightning", "diffusion", "unconditional-generation")


def check_repository(repository: str) -> None:
    """Raise UserError for a name that no repository has, and where huggingface_hub is missing."""
    try:
        from huggingface_hub.utils import validate_repo_id
    except ImportError as error:
        raise UserError(
            f"push={repository} needs huggingface_hub ({error}); pip install 'ddpm_lightning[hub]'"
        ) from error
    try:
        validate_repo_id(repository)
        if repository.count("/") != 1:
            raise ValueError("it has to be ORG/NAME")
    except ValueError as error:
        raise UserError(f"push={repository} names no repository: {error}") from error


def push(folder: Path, repository: str) -> str:
    """Upload all files of a folder, and return the address of the repository: a new one is private.

    The login is what `hf auth login` has left.

    Raises:
        RunFailed: in one line, where the hub does not take it.
    """
    from huggingface_hub import HfApi

    try:
        api = HfApi()
        address = str(api.create_repo(repository, private=True, exist_ok=True))
        api.upload_folder(
            repo_id=repository, folder_path=folder, commit_message="From ddpm_lightning's export.py"
        )
    except Exception as error:  # what its HTTP client raises is part of no contract
        reason = " ".join(str(error).split()) or type(error).__name__
        raise RunFailed(
            f"{repository} could not be pushed: {reason:.200}; all is ready for: "
            f"hf upload --private {repository} {os.path.relpath(folder)}"
        ) from error
    return address


def write_card(opened: Opened, folder: Path, name: str, use: str) -> Path:
    """Write README.md, and the newest picture of samples beside it.

    Args:
        name: of the model.   use: a command, or a line of Python, that uses what is in the folder.
    """
    from huggingface_hub import ModelCardData

    metadata = ModelCardData(library_name="ddpm_lightning", tags=list(_TAGS)).to_yaml()
    shown = ""
    if picture := _picture(opened.run.directory):
        copy = folder / f"samples{picture.suffix}"
        shutil.copyfile(picture, copy)
        shown = f"![Samples]({copy.name})\n\n"
    path = folder / "README.md"
    path.write_text(
        f"---\n{metadata}\n---\n\n# {name}\n\n{shown}{_summary(opened)}\n\n"
        f"## Use\n\n```\n{use}\n```\n\n"
        f"## Measures\n\n{_measures(opened.run.directory)}\n\n"
        f"## Recipe\n\n```yaml\n{_recipe(opened.run.config)}```\n"
    )
    return path


def _summary(opened: Opened) -> str:
    denoiser, data = opened.denoiser, opened.run.config["data"]
    count = sum(p.numel() for p in denoiser.network.parameters())
    size = data["size"] if isinstance(data["size"], int) else " x ".join(map(str, data["size"]))
    return (
        f"A diffusion model of clips of {data['num_frames']} frames of {size} pixels, "
        f"{data['channels']} channels: {type(denoiser.process).__name__} of "
        f"{denoiser.process.num_steps:,} steps, {type(denoiser.objective).__name__}, "
        f"{type(denoiser.network).__name__} with {count:,} parameters; {opened.origin}. Clips have "
        f"{denoiser.statistics}."
    )


def _picture(directory: Path) -> Path | None:
    """Return the newest grid that sample.py has left in a run, or that of its training."""
    grids = [*directory.glob("samples/*/grid.gif"), *directory.glob("samples/*/grid.png")]
    grids = grids or list(directory.glob("samples/final.gif"))
    return max(grids, key=lambda path: path.stat().st_mtime, default=None)


def _measures(directory: Path) -> str:
    """Return a table of the cards that evaluate.py has left in a run."""
    rows: list[str] = []
    for path in sorted(directory.glob("evaluation/*.json")):
        # no file of evaluate.py
        with suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
            rows += [_row(card) for card in read_json(path)]
    if not rows:
        return "None yet: `python evaluate.py checkpoint=RUN` measures a run."
    head = ["| measure | value | unit | weights | step |", "|---|---|---|---|---|"]
    return "\n".join([*head, *rows])


def _row(card: dict[str, Any]) -> str:
    error = card.get("standard_error")
    value = f"{card['value']:.5g}" + (f" +- {error:.2g}" if error is not None else "")
    run = card["run"]
    cells = (card["name"], value, card["unit"], run.get("weights"), run.get("step"))
    return f"| {' | '.join(map(str, cells))} |"


def _recipe(config: dict[str, Any]) -> str:
    """Return the model and the form of its clips as YAML: no place on this machine is in it."""
    form = {key: config["data"][key] for key in FORM_KEYS}
    return yaml.safe_dump(_shortened({"model": config["model"], "data": form}), sort_keys=False)


def _shortened(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _shortened(item) for key, item in value.items()}
    if isinstance(value, list) and len(value) > _MOST:
        return f"{len(value)} values, {value[0]} to {value[-1]}"
    return value

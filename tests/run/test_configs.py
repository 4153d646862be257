"""Every option of every group composes, passes the checks and builds what it names."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import OmegaConf, open_dict

from ddpm_lightning.run.cli import CONF
from ddpm_lightning.run.config import check, resolved
from ddpm_lightning.run.train import build, build_trainer
from tests.commands import TINY, write_gifs

GROUPS = sorted(folder.name for folder in CONF.iterdir() if folder.is_dir())
OPTIONS = [(g, path.stem) for g in GROUPS for path in sorted((CONF / g).glob("*.yaml"))]


def composed(folder: Path, *overrides: str) -> dict[str, Any]:
    """The resolved configuration of a training command."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", [*overrides, f"hydra.run.dir={folder}"], return_hydra_config=True)
    with open_dict(cfg):
        cfg.hydra.runtime.output_dir = str(folder)
    HydraConfig.instance().set_config(cfg)
    job = OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"])
    return resolved(job)


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=lambda name: name)
def test_option_composes_and_builds(
    group: str, option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_gifs(tmp_path / "gifs")
    takes_path = group == "experiment" or option == "gif_folder"
    path = ["data.path=gifs"] if takes_path else ["data.source.num_clips=20"]
    config = composed(tmp_path / "run", f"{group}={option}", *path)
    check(config)
    if group == "trainer":
        config["trainer"] |= {"accelerator": "cpu", "devices": 1, "precision": "32-true"}
    data, module = build(config)
    trainer = build_trainer(config, tmp_path / "run")
    assert isinstance(trainer, pl.Trainer)
    sampler = instantiate(config["sampler"])
    shape = (1, data.format.channels, 2, 16, 16)
    sampler.num_evaluations = 2
    generator = torch.Generator().manual_seed(0)
    clips = sampler.sample(module.denoiser, shape, generator=generator)
    assert clips.shape == shape
    assert clips.isfinite().all()


@pytest.mark.parametrize("name", ["sample", "evaluate"])
def test_the_other_commands_compose(name: str) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose(name, ["checkpoint=outputs/run"])
    check(resolved(cfg))


def test_every_group_is_on_the_help_page() -> None:
    page = (CONF / "config.yaml").read_text().split("template:")[1]
    assert [group for group in GROUPS if group not in page] == []


def test_tiny_run_is_a_valid_command(tmp_path: Path) -> None:
    write_gifs(tmp_path / "gifs")
    overrides = [word.replace("=gifs", f"={tmp_path / 'gifs'}") for word in TINY]
    check(composed(tmp_path / "run", *overrides))

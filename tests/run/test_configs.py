"""Every option of every group composes, passes the checks and builds what it names."""

from itertools import zip_longest
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from ddpm_lightning.evaluation.measure import Measure
from ddpm_lightning.run.commands.evaluate import build_measures
from ddpm_lightning.run.config.build import build_data, build_denoiser
from ddpm_lightning.run.config.check import check, resolved
from ddpm_lightning.run.config.errors import UserError
from ddpm_lightning.run.config.words import CONF
from ddpm_lightning.run.fitting.fit import build_module, build_trainer
from tests.commands import TINY, write_gifs
from tests.data.shared import write_videos
from tests.problems import NEEDED, OF_EVALUATE, OF_SHOW, networks

pytestmark = pytest.mark.slow  # each composes the whole configuration

FOLDERS = sorted(folder.relative_to(CONF) for folder in CONF.rglob("*") if folder.is_dir())
GROUPS = [str(folder) for folder in FOLDERS]
OPTIONS = [(g, path.stem) for g in GROUPS for path in sorted((CONF / g).glob("*.yaml"))]
EVALUATED = [(g, option) for g, option in OPTIONS if g.startswith(OF_EVALUATE)]
MODELS, NOISES = ([o for g, o in OPTIONS if g == group] for group in ("model", "noise"))
# Options that are composed one by one: of groups that choose others, and of where clips come from.
ALONE = [f"{g}={o}" for g, o in OPTIONS if g in ("data", "experiment", "debug", "condition/text")]
_others = [g for g in GROUPS if not any(w.startswith(f"{g}=") for w in ALONE)]
_others = [g for g in _others if not g.startswith(OF_EVALUATE) and g not in (*OF_SHOW, "model")]
# The others of any group go together: the first of each in one composition, and so on.
TOGETHER = [
    list(filter(None, words))
    for words in zip_longest(*([f"{g}={o}" for h, o in OPTIONS if h == g] for g in _others))
]
# Where evaluate.py takes the options of a likelihood.
PLACE = {
    "likelihood": "likelihood@measure.bits.bound",
    "likelihood/solver": "likelihood/solver@measure.bits.flow.solver",
    "likelihood/probe": "likelihood/probe@measure.bits.flow.probe",
}
COMMANDS = ("config", "evaluate", "show")  # that have groups of their own
SMALL = ["network.base_width=16", "network.head_width=8"]


def unresolved(folder: Path, *overrides: str) -> DictConfig:
    """The configuration of a training command."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", [*overrides, f"run_dir={folder}"])


def composed(folder: Path, *overrides: str) -> dict[str, Any]:
    """The same, with every interpolation replaced by its value."""
    return resolved(unresolved(folder, *overrides))


def builds(config: dict[str, Any]) -> None:
    """And samples two clips with two network calls."""
    check(config)
    data, denoiser = build_data(config["data"]), build_denoiser(config["model"])
    build_module(config["model"], denoiser)
    sampler = instantiate(config["sampler"])
    shape = (1, data.format.channels, 2, 16, 16)
    sampler.num_evaluations = 2
    generator = torch.Generator().manual_seed(0)
    clips = sampler.sample(denoiser, shape, generator=generator)
    assert clips.shape == shape
    assert clips.isfinite().all()


def builds_all(config: dict[str, Any], folder: Path) -> None:
    config["trainer"] |= {"accelerator": "cpu", "devices": 1, "precision": "32-true"}
    builds(config)
    assert isinstance(build_trainer(config, folder), pl.Trainer)


@pytest.mark.parametrize("words", TOGETHER, ids=" ".join)
def test_options_compose_and_build(words: list[str], tmp_path: Path) -> None:
    words = [*words, *SMALL, "data.source.num_clips=20"]
    builds_all(composed(tmp_path / "run", *words), tmp_path / "run")


@pytest.mark.parametrize("word", ALONE)
def test_option_composes_and_builds(
    word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    group = word.partition("=")[0]
    words = ["data.source.num_clips=20", *filter(None, [NEEDED.get(group)])]
    if group in ("data", "experiment"):
        write_gifs(tmp_path / "gifs")
        (tmp_path / "list.txt").write_text("https://example.com/a.gif\n")
        data = unresolved(tmp_path / "run", word).data
        if "list" in set(data.keys()):  # which may be missing
            words = ["data.list=list.txt"]
        elif OmegaConf.is_missing(data, "path"):
            write_videos(tmp_path / "gifs")
            words = ["data.path=gifs"]
    builds_all(composed(tmp_path / "run", word, *SMALL, *words), tmp_path / "run")


def test_a_batch_size_that_is_to_be_measured_passes_the_checks(tmp_path: Path) -> None:
    check(composed(tmp_path / "run", "data.batch_size=auto"))


@pytest.mark.long
@pytest.mark.parametrize("noise", NOISES)
def test_every_model_builds_under_every_noise(noise: str, tmp_path: Path) -> None:
    """The models' files are put into one composition, which takes most of the time."""
    words = [f"noise={noise}", "data.source.num_clips=20", *SMALL]
    config = unresolved(tmp_path / "run", *words)
    standard = OmegaConf.load(CONF / "model" / "standard.yaml")
    for model in MODELS:
        own = OmegaConf.load(CONF / "model" / f"{model}.yaml")
        assert isinstance(own, DictConfig)
        own.pop("defaults", None)
        config.model = OmegaConf.merge(standard, own)
        builds(resolved(config))


@pytest.mark.parametrize("model", MODELS)
def test_model_composes_and_builds(model: str, tmp_path: Path) -> None:
    builds(composed(tmp_path / "run", f"model={model}", "data.source.num_clips=20", *SMALL))


@pytest.mark.parametrize("name", networks())
def test_networks_build_at_their_own_width(name: str, tmp_path: Path) -> None:
    config = composed(tmp_path / "run", f"network={name}", "data.source.num_clips=20")
    check(config)
    build_denoiser(config["model"])


@pytest.mark.parametrize(("group", "option"), EVALUATED, ids=lambda name: name)
def test_what_evaluates_composes_and_builds(group: str, option: str) -> None:
    place = PLACE.get(group, group)
    words = ["checkpoint=outputs/run", "measure=all", f"{place}={option}"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("evaluate", words)
    if needed := OmegaConf.missing_keys(cfg):  # a file of the user's
        with pytest.raises(UserError, match=f"{min(needed)} must be given"):
            resolved(cfg)
        return
    config = resolved(cfg)
    check(config)
    assert all(
        isinstance(measure, Measure) for measure in build_measures(config["measure"]).values()
    )


@pytest.mark.parametrize("name", ["sample", "evaluate", "export"])
def test_the_other_commands_compose(name: str) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose(name, ["checkpoint=outputs/run"])
    check(resolved(cfg))


@pytest.mark.parametrize("group", [g for g in GROUPS if g.startswith("sampler")])
def test_the_samplers_options_are_those_of_sampling_too(group: str) -> None:
    for option in (o for g, o in OPTIONS if g == group):
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("sample", ["checkpoint=outputs/run", f"{group}={option}"])
        check(resolved(cfg))


@pytest.mark.long
@pytest.mark.parametrize(
    "words",
    [
        ["loss=hybrid_vlb"],  # which asks for a second output of any network
        ["loss=hybrid_vlb", "network=unet3d_small"],
        ["loss=hybrid_vlb", "sampler=ancestral", "sampler.variance=null"],
        ["noise=matched", "noise@noise.process.schedule=cosine"],
        ["noise=snr_shift", "noise@noise.schedule=linear", "noise.num_steps=60"],
        ["noise=zero_terminal_snr", "noise@noise.schedule=cosine", "model=median"],
        ["sampler=unipc", "sampler/grid=karras", "sampler/thresholding=dynamic"],
        ["sampler=midpoint", "model=median", "noise=hybrid", "sampler/grid=quadratic"],
        ["objective=karras", "loss=edm", "times=uniform_log_snr"],
        ["model=continuous", "noise=linear", "sampler=heun", "loss=vlb"],
    ],
    ids=" ".join,
)
def test_options_go_together(words: list[str], tmp_path: Path) -> None:
    config = composed(tmp_path / "run", *words, *SMALL, "data.source.num_clips=20")
    builds(config)
    if "loss=hybrid_vlb" in words:
        assert config["network"]["out_channels"] == 2 * config["data"]["channels"]
    if "noise.num_steps=60" in words:
        assert config["noise"]["schedule"]["num_steps"] == 60


def test_every_group_is_on_a_help_page() -> None:
    pages = [(CONF / f"{n}.yaml").read_text().split("template:")[1] for n in COMMANDS]
    absent = [group for group in GROUPS if not any(group in page for page in pages)]
    assert absent == []


def test_tiny_run_is_a_valid_command(tmp_path: Path) -> None:
    write_gifs(tmp_path / "gifs")
    overrides = [word.replace("=gifs", f"={tmp_path / 'gifs'}") for word in TINY]
    check(composed(tmp_path / "run", *overrides))


def test_only_what_takes_no_time_is_within_a_step() -> None:
    """A rank that draws or saves there would count as one that hangs."""
    callbacks = list(OmegaConf.load(CONF / "callbacks" / "default.yaml"))
    assert callbacks[: callbacks.index("hang")] == ["throughput"]

"""python train.py: a run's files, its record, resuming, and what it does to every combination."""

import inspect
import json
from collections.abc import Mapping
from itertools import product
from math import isfinite
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hydra.utils import get_class
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ddpm_lightning.data.gif import decode
from ddpm_lightning.files.checkpoints import read
from ddpm_lightning.plots.curves import read_metrics
from ddpm_lightning.run.fitting import memory
from tests.commands import TINY, Call, assert_user_error, newest_run, spawn, write_gifs

pytestmark = pytest.mark.slow  # all of them train


def test_a_run_leaves_config_checkpoints_pictures_and_curves(trained: Path) -> None:
    assert json.loads((trained / "status.json").read_text())["status"] == "finished"
    assert yaml.safe_load((trained / "config.yaml").read_text())["trainer"]["max_steps"] == 4
    names = {"best.ckpt", "last.ckpt", "step_00000002.ckpt", "step_00000004.ckpt"}
    files = {path.name for path in (trained / "checkpoints").iterdir()}
    assert files == names
    assert (trained / "curves.png").read_bytes().startswith(b"\x89PNG")
    grid = decode((trained / "samples" / "final.gif").read_bytes())
    assert len(grid.frames) == 4
    film = decode((trained / "samples" / "reverse.gif").read_bytes())
    assert len(film.frames) == 5 + 3 * 4  # five states of four steps, then the clips three times


def test_metrics_hold_all_that_is_promised(trained: Path) -> None:
    metrics = read_metrics(trained / "metrics.csv")
    expected = {
        "train/loss",
        "val/loss",
        "val/error",
        "train/grad_norm",
        "train/clips_per_s",
        "train/data_wait",
        "train/learning_rate",
        "train/ema_distance",
        "train/tflops",
        "grad_norm/down_0",
    }
    assert expected <= set(metrics)
    for group in ("train_by_log_snr/", "val_by_log_snr/", "val_error_at/"):
        assert any(name.startswith(group) for name in metrics)
    assert 0 <= metrics["train/data_wait"][1][-1] <= 1
    assert metrics["train/clips_per_s"][1][-1] > 0
    assert metrics["train/grad_norm"][1][-1] > 0


def test_what_the_device_cannot_hold_is_refused_with_what_it_can(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda device: 80 * 2**20)
    words = [*TINY, "logger=csv", "data.batch_size=4096"]
    assert_user_error(call("train", *words), "data.batch_size=4096 needs", "accumulate_grad")
    monkeypatch.setattr(memory, "available_bytes", lambda device: 2**20)
    assert_user_error(call("train", *words), "a single clip of 4x8x8 needs", "checkpointing=true")


def test_checkpoints_hold_raw_and_averaged_weights_as_plain_tensors(trained: Path) -> None:
    checkpoint = torch.load(trained / "checkpoints" / "last.ckpt", weights_only=True)
    state = checkpoint["state_dict"]
    raw = {name for name in state if name.startswith("denoiser.")}
    averaged = {name.removeprefix("ema_") for name in state if name.startswith("ema_denoiser.")}
    assert raw == averaged
    assert any(not state[name].equal(state["ema_" + name]) for name in raw)
    assert checkpoint["global_step"] == 4


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with the loggers of the default, and two samplers that are compared."""
    folder = tmp_path_factory.mktemp("shown")
    write_gifs(folder / "gifs")
    words = ["run_dir=out", "callbacks.samples.compare_every_n_steps=2"]
    for name, sampler, calls in (("same", "dpmpp_2m_sde", 4), ("other", "heun", 3)):
        words += [f"+sampler@callbacks.samples.compare.{name}={sampler}"]
        words += [f"callbacks.samples.compare.{name}.num_evaluations={calls}"]
    result = spawn(folder, "train", *TINY, *words)
    assert result.code == 0, result.err
    return folder / "out"


@pytest.fixture(scope="module")
def events(shown: Path) -> EventAccumulator:
    """What TensorBoard has of it."""
    return EventAccumulator(str(shown / "tensorboard")).Reload()


def test_both_dashboards_receive_gifs_that_animate(shown: Path, events: EventAccumulator) -> None:
    image = events.Images("samples")[-1]
    assert len(decode(image.encoded_image_string).frames) == 4
    assert events.Scalars("train/loss")[-1].step <= 4
    (curve,) = events.Images("log_snr")
    assert curve.encoded_image_string == (shown / "log_snr.png").read_bytes()
    for tag, part in (("overview", "GFLOP a step"), ("config", "max_steps: 4")):
        (text,) = events.Tensors(f"{tag}/text_summary")
        assert part in text.tensor_proto.string_val[0].decode()
    offline = next(shown.glob("wandb/offline-run-*"))
    assert list(offline.glob("*.wandb"))
    media = sorted(offline.glob("files/media/videos/samples*.gif"))
    assert media
    assert len(decode(media[-1].read_bytes()).frames) == 4
    assert list(offline.glob("files/media/images/log_snr*.png"))
    for name in ("train.log", "starts/01.json"):
        assert (offline / "files" / name).samefile(shown / name)


def test_samplers_are_compared_on_the_same_noise(shown: Path, events: EventAccumulator) -> None:
    final = (shown / "samples" / "final.gif").read_bytes()
    assert (shown / "samples" / "compare_same.gif").read_bytes() == final
    assert (shown / "samples" / "compare_other.gif").read_bytes() != final
    for tag in ("compare/same_4_calls", "compare/other_3_calls"):
        assert [image.step for image in events.Images(tag)] == [2, 4]


def test_resuming_continues_steps_and_optimizer(resumed_once: Path) -> None:
    checkpoint = torch.load(resumed_once / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 6
    moments = checkpoint["optimizer_states"][0]["state"][0]
    assert moments["step"] == 6


def without_defaults(value: Any) -> Any:
    """A configuration as it was before these options existed."""
    if not isinstance(value, dict):
        return value
    known: Mapping[str, inspect.Parameter] = {}
    if str(value.get("_target_")).startswith("ddpm_lightning."):
        known = inspect.signature(get_class(value["_target_"])).parameters
    return {
        k: without_defaults(v) for k, v in value.items() if k not in known or v != known[k].default
    }


@pytest.mark.long
def test_a_run_that_is_older_than_some_options_goes_on(call: Call, trained: Path) -> None:
    for name in ("composed.yaml", "config.yaml"):
        stored = yaml.safe_load((trained / name).read_text())
        callbacks = stored.get("config", stored)["callbacks"]
        del callbacks["samples"]["compare"], callbacks["checkpoints"]["directory"]
        del callbacks["diagnosis"]
        (trained / name).write_text(yaml.safe_dump(without_defaults(stored)))
    assert "checkpointing" not in (trained / "config.yaml").read_text()
    for command, *arguments in (("sample", "num_samples=1"), ("evaluate",)):
        result = call(command, f"checkpoint={trained}", *arguments)
        assert result.code == 0, result.err
    words = [f"resume={trained}", "trainer.max_steps=5"]
    key = "callbacks.checkpoints.directory"  # which has no default
    assert_user_error(call("train", *words), "Checkpoints.__init__() missing", "'directory'")
    result = call("train", *words, f"++{key}={trained / 'checkpoints'}")
    assert result.code == 0, result.err
    assert read(trained / "checkpoints" / "last.ckpt")["global_step"] == 5


@pytest.mark.long
def test_the_same_seed_gives_the_same_losses(call: Call, tmp_path: Path) -> None:
    losses = []
    for seed in (3, 3, 4):
        assert call("train", *TINY, "logger=csv", f"seed={seed}").code == 0
        losses.append(read_metrics(newest_run(tmp_path) / "metrics.csv")["train/loss"][1])
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]


MODELS, OBJECTIVES = ["standard", "median"], ["epsilon", "clean", "velocity"]
SAMPLERS = ["ancestral", "ddim", "heun"]
FIRST = [("median", "epsilon", "heun")]  # the others are for make test-long
COMBINATIONS = [
    pytest.param(*names, marks=[] if names in FIRST else pytest.mark.long)
    for names in product(MODELS, OBJECTIVES, SAMPLERS)
]


@pytest.mark.parametrize(("model", "objective", "sampler"), COMBINATIONS)
def test_hybrid_noise_trains_and_samples_without_nan(
    model: str, objective: str, sampler: str, call: Call, tmp_path: Path
) -> None:
    words = [f"model={model}", f"objective={objective}", f"sampler={sampler}", "noise=hybrid"]
    result = call("train", *words, *TINY, "noise.num_steps=1000", "logger=csv")
    assert result.code == 0, result.err
    run = newest_run(tmp_path)
    metrics = read_metrics(run / "metrics.csv")
    assert all(isfinite(value) for _, values in metrics.values() for value in values)
    state = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert all(tensor.isfinite().all() for tensor in state.values())


@pytest.mark.long
def test_four_clips_are_learned_by_heart(call: Call, tmp_path: Path) -> None:
    # Which of four clips it is can be seen through noise as strong as the signal, so there a
    # network that knows them by heart makes next to no error. (Through more noise it has to guess.)
    for path in sorted((tmp_path / "gifs").iterdir())[4:]:
        path.unlink()
    words = [*TINY, "debug=overfit", "data.batch_size=4", "data.num_frames=6", "logger=csv"]
    words += ["trainer.max_steps=300", "trainer.val_check_interval=20", "model.val_draws=32"]
    words += ["callbacks.samples.every_n_steps=1000", "optimizer.lr=0.003"]
    result = call("train", *words)
    assert result.code == 0, result.err
    losses = read_metrics(newest_run(tmp_path) / "metrics.csv")["val_by_log_snr/0_to_4"][1]
    assert losses[-1] < 0.1 * losses[0]  # seen: 0.03

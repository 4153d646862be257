"""A pipeline folder of diffusers in the place of a run: what can be done with it, and bad ones."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from ddpm_lightning.data.gif import decode
from ddpm_lightning.denoiser import Denoiser
from ddpm_lightning.run.config.errors import UserError
from ddpm_lightning.run.exchange.pipeline import load_pipeline
from ddpm_lightning.samplers.noise import per_sample_generators
from tests.commands import Call, assert_user_error
from tests.pipelines import save_pipeline
from tests.problems import build, options

pytest.importorskip("diffusers", reason="needs the extra diffusers")

pytestmark = pytest.mark.slow  # as a whole: diffusers is imported in two seconds
WEIGHTS = Path("unet/diffusion_pytorch_model.safetensors")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pipeline(tmp_path_factory.mktemp("pipeline") / "saved")


@pytest.fixture(scope="module")
def denoiser(saved: Path) -> Denoiser:
    return load_pipeline(str(saved))[1]


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy that a test may change, linked where it does not."""
    copy = tmp_path / "pipeline"
    for path in saved.rglob("*.*"):
        target = copy / path.relative_to(saved)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    return copy


def test_stills_are_png_and_their_film_a_gif(
    call: Call, folder: Path, denoiser: Denoiser, tmp_path: Path
) -> None:
    words = ["sampler=ddim", "sampler.num_evaluations=5", "num_samples=3", "output=out"]
    result = call("sample", f"checkpoint={folder}", *words)
    assert result.code == 0, result.err
    assert "safetensors (of diffusers)" in result.out
    sampler = build("sampler", "ddim")
    sampler.num_evaluations = 5
    generator = per_sample_generators(0, range(3))
    x = sampler.sample(denoiser, (3, 3, 1, 8, 8), generator=generator)
    expected = denoiser.statistics.restore(x)
    for k, (still,) in enumerate(expected):
        picture = np.asarray(Image.open(tmp_path / "out" / "clips" / f"{k:04d}.png"))
        assert np.array_equal(picture, still.numpy())
    grid = np.asarray(Image.open(tmp_path / "out" / "grid.png"))
    assert grid.shape == (2 * 132 + 4, 2 * 132 + 4, 3)  # tiles of 128 pixels, 4 between them
    enlarged = expected[0, 0].numpy().repeat(16, 0).repeat(16, 1)
    assert np.array_equal(grid[4:132, 4:132], enlarged)
    film = decode((tmp_path / "out" / "reverse.gif").read_bytes())
    assert len(film.frames) == 6 + 3  # five calls and the end, which stays


@pytest.mark.parametrize("name", options("sampler"))
def test_every_sampler_walks_it(name: str, denoiser: Denoiser) -> None:
    """And draws stills within the range of bytes, which static thresholding keeps to."""
    sampler = build("sampler", name)
    sampler.num_evaluations = 8
    generator = torch.Generator().manual_seed(0)
    stills = sampler.sample(denoiser, (2, 3, 1, 8, 8), generator=generator)
    assert stills.isfinite().all()
    assert stills.abs().max() <= 1.5


def test_measures_run_on_it_where_clips_are_given(call: Call, folder: Path) -> None:
    words = [
        "measure=[levels,trained_loss,bits]",
        "measure.bits.bound.num_terms=4",
        "measure.bits.flow.solver.num_steps=2",
        "likelihood/solver@measure.bits.flow.solver=heun",
    ]
    without = call("evaluate", f"checkpoint={folder}")
    assert_user_error(without, "has no clips to be measured on; add data.path=DIR")
    result = call("evaluate", f"checkpoint={folder}", "data.path=gifs", *words)
    assert result.code == 0, result.err
    for name in ("levels", "trained_loss", "bits"):
        for card in json.loads((folder / "evaluation" / f"{name}.json").read_text()):
            assert card["run"]["step"] is None
            assert card["run"]["weights"] == "diffusers"
            assert card["clips"]["num_frames"] == 1
            assert np.isfinite(card["value"])


def test_it_becomes_a_file_of_ours(call: Call, folder: Path, tmp_path: Path) -> None:
    words = ["num_samples=1", "sampler.num_evaluations=3"]
    assert call("sample", f"checkpoint={folder}", *words, "output=a").code == 0
    result = call("export", f"checkpoint={folder}", "output=x.safetensors")
    assert result.code == 0, result.err
    alone = call("sample", "checkpoint=x.safetensors", *words, "output=b")
    assert alone.code == 0, alone.err
    assert "x.safetensors (of diffusers)" in alone.out
    grids = [(tmp_path / name / "grid.png").read_bytes() for name in "ab"]
    assert grids[0] == grids[1]


def edit(name: str, **changes: Any) -> Callable[[Path], None]:
    """Return what changes keys of a JSON file."""

    def change(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def of_weights(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    """Return what changes the weights."""

    def rewrite(folder: Path) -> None:
        state = load_file(folder / WEIGHTS)
        change(state)
        save_file(state, folder / WEIGHTS)

    return rewrite


def pickled(folder: Path) -> None:
    class Hostile:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(folder / "attacked"),)

    (folder / WEIGHTS).unlink()
    data = pickle.dumps({"conv_in.weight": Hostile()}, protocol=2) + bytes(2**17)
    (folder / WEIGHTS).with_suffix(".bin").write_bytes(data)


SCHEDULER, UNET, INDEX = "scheduler/scheduler_config.json", "unet/config.json", "model_index.json"
BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "another kind": (
        edit(INDEX, _class_name="LDMPipeline", vqvae=["diffusers", "VQModel"]),
        r"is a LDMPipeline of scheduler, unet, vqvae; a pipeline of a UNet2DModel and a scheduler",
    ),
    "another network": (edit(INDEX, unet=["diffusers", "UNet1DModel"]), "a UNet2DModel"),
    "no JSON": (lambda f: (f / INDEX).write_text("{"), "model_index.json cannot be used"),
    "a large JSON": (
        lambda f: (f / UNET).write_bytes(b" " * 2**21),
        "config.json cannot be used: .* at most 1,048,576 are read",
    ),
    "a deep JSON": (lambda f: (f / UNET).write_text("[" * 10**5), "cannot be used: .* too deep"),
    "no scheduler": (
        lambda f: (f / SCHEDULER).unlink(),
        "scheduler_config.json cannot be used: .* No such file",
    ),
    "no configuration": (
        lambda f: (f / UNET).unlink(),
        "unet/config.json cannot be used: .* No such file",
    ),
    "no weights": (
        lambda f: (f / WEIGHTS).unlink(),
        "safetensors is missing, and so is diffusion_pytorch_model.bin",
    ),
    "another scheduler": (
        edit(SCHEDULER, _class_name="FlowMatchEulerDiscreteScheduler"),
        "FlowMatchEulerDiscreteScheduler cannot be reproduced",
    ),
    "another schedule": (
        edit(SCHEDULER, beta_schedule="exponential"),
        "cannot be used: beta_schedule=exponential",
    ),
    "another prediction": (
        edit(SCHEDULER, prediction_type="flow_prediction"),
        "cannot be used: prediction_type=flow_prediction",
    ),
    "a long chain": (
        edit(SCHEDULER, num_train_timesteps=10**9),
        "cannot be used: num_train_timesteps=1000000000: .* less than or equal to 20000",
    ),
    "betas of 2": (edit(SCHEDULER, beta_end=2.0), r"betas must lie in \[0, 1\], got 0.0001 to 2"),
    "an old name": (
        edit(SCHEDULER, predict_epsilon=False),
        "cannot be used: predict_epsilon=False",
    ),
    "classes": (edit(UNET, num_class_embeds=10), "cannot be used: num_class_embeds=10"),
    "learned variance": (edit(UNET, out_channels=6), "cannot be used: out_channels=6"),
    "an option that there is not": (edit(UNET, width=3), "does not take this configuration"),
    "a block that there is not": (
        edit(UNET, down_block_types=["DownBlock2D", "Elsewhere2D"]),
        "Elsewhere2D",
    ),
    "a class to build": (
        edit(UNET, act_fn={"_target_": "os.mkdir", "path": "attacked"}),
        "UNet2DModel does not take|_target_='os.mkdir' is not allowed",
    ),
    "a huge network": (
        edit(UNET, block_out_channels=[4096, 8192]),
        "too few for the .* weights that config.json asks for",
    ),
    "another network's weights": (edit(UNET, block_out_channels=[4, 8]), "does not fit"),
    "a weight too few": (of_weights(lambda s: s.pop("conv_in.bias")), "missing conv_in.bias"),
    "a weight too many": (
        of_weights(lambda s: s.update(more=torch.zeros(1))),
        "unexpected more",
    ),
    "a weight that is not finite": (
        of_weights(lambda s: s["conv_in.bias"].fill_(torch.nan)),
        "conv_in.bias is not finite",
    ),
    "half a download": (
        lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:-100]),
        "does not fit its config.json, or is damaged",
    ),
    "code": (pickled, "does not fit its config.json, or is damaged"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_folder_is_refused_in_one_line(name: str, folder: Path) -> None:
    change, message = BAD[name]
    change(folder)
    with pytest.raises(UserError, match=message) as caught:
        load_pipeline(str(folder))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500
    assert not (folder / "attacked").exists()


def test_commands_refuse_it_too(call: Call, folder: Path) -> None:
    refused = call("sample", f"checkpoint={folder}", "weights=raw")
    assert_user_error(refused, "holds one set of weights; leave weights=raw away")
    edit(SCHEDULER, _class_name="ScoreSdeVeScheduler")(folder)
    for command in ("sample", "evaluate", "export"):
        refused = call(command, f"checkpoint={folder}")
        assert_user_error(refused, "ScoreSdeVeScheduler cannot be reproduced")
        assert len(refused.err.splitlines()) == 1
    (folder / INDEX).unlink()
    assert_user_error(call("sample", f"checkpoint={folder}"), "nor a pipeline of diffusers")

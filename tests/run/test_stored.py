"""Runs as disks and strangers leave them: files that cannot be read, hostile YAML and pickles,
weights that are not finite, places outside.
"""

import json
import os
import pickle
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from ddpm_lightning.files import checkpoints as files
from ddpm_lightning.files.sealed import seal, seal_zip
from ddpm_lightning.run.config.errors import UserError
from ddpm_lightning.run.directory.checkpoint import check_places, read_yaml
from ddpm_lightning.run.directory.resume import _composed as composed_before
from tests.commands import Call, assert_user_error

LEVELS = 30


def nested_aliases() -> str:
    """Each level names the one before it nine times: 9^30 leaves."""
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, LEVELS)]
    return "\n".join(lines)


HOSTILE = {
    "nested aliases": nested_aliases(),
    "an alias of itself": "a: &a [*a]",
    "merged maps": "a: &a {x: 1}\nb: &b {<<: [*a, *a]}\nc: {<<: [*b, *b]}",
    "deep lists": "[" * 10_000,
    "deep maps": "".join(f"{' ' * i}a:\n" for i in range(60)),
    "too much": f"a: {'x' * 2**20}",
    "no YAML": "a: [1, 2",
    "an object": "a: !!python/object/apply:os.system [true]",
    "no text": "a: \x00",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_yaml_of_strangers_is_bounded(name: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(HOSTILE[name])
    with pytest.raises(UserError, match=r"config\.yaml is not readable YAML") as caught:
        read_yaml(path)
    assert "\n" not in str(caught.value)


NESTED = {
    "lists": {f"a{i}": [f"${{a{i - 1}}}"] * 9 for i in range(1, LEVELS)} | {"a0": [1]},
    "maps": {f"a{i}": {"x": f"${{a{i - 1}}}", "y": f"${{a{i - 1}}}"} for i in range(1, 40)}
    | {"a0": {"x": 1}},
    "texts": {f"a{i}": f"${{a{i - 1}}}" * 9 for i in range(1, LEVELS)} | {"a0": "x"},
    "empty texts": {f"a{i}": f"${{a{i - 1}}}" * 9 for i in range(1, LEVELS)} | {"a0": ""},
    "selected": {f"a{i}": f"${{oc.select:a{i - 1}}}" * 9 for i in range(1, LEVELS)} | {"a0": "x"},
    "numbers": {f"a{i}": f"${{product:{f'${{a{i - 1}}},' * 8}9}}" for i in range(1, LEVELS)}
    | {"a0": 9},
    "a long text, often": {"a": "x" * 2**18, "b": "${a}" * 2**10},
    "a large list, often": {"a": ["x" * 2**7] * 2**8, "b": ["${a}"] * 2**10},
    "a circle of texts": {"a": "${b}", "b": "${a}"},
    "a circle of maps": {"a": {"x": "${b}"}, "b": {"y": "${a}"}},
    "too long to parse": {"a": "${b}-" * 2**16, "b": 1},
}
MARKS: dict[str, Any] = {
    "a circle of texts": (),
    "lists": pytest.mark.slow,
    "a long text, often": pytest.mark.slow,
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=MARKS.get(n, pytest.mark.long)) for n in NESTED],
)
def test_interpolations_of_strangers_are_bounded(name: str, tmp_path: Path) -> None:
    """Resolved, the nested ones would have 9^30 or 2^40 leaves or characters."""
    config = yaml.safe_dump({"choices": {}, "config": NESTED[name]})
    (tmp_path / "composed.yaml").write_text(config)
    with pytest.raises(UserError, match=r"composed\.yaml is missing or damaged") as caught:
        composed_before(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_interpolations_as_runs_have_them_are_resolved(tmp_path: Path) -> None:
    config = {"run_dir": "r", "a": [1] * 2**10, "b": ["${a}"] * 5, "c": ["${run_dir}/c"] * 50}
    (tmp_path / "composed.yaml").write_text(yaml.safe_dump({"choices": {}, "config": config}))
    cfg, _ = composed_before(tmp_path)
    assert (len(cfg.b), len(cfg.b[4]), cfg.c[49]) == (5, 2**10, "r/c")


def test_a_folder_and_a_binary_file_are_not_yaml(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    for name in ("folder", "binary", "absent"):
        with pytest.raises(UserError, match=f"{name} is not readable YAML"):
            read_yaml(tmp_path / name)


def saved(folder: Path, steps: list[int]) -> None:
    for step in steps:
        path = folder / files.STEP.format(step)
        files.write({"global_step": step, "state_dict": {}}, path)
        files.link(path, folder / files.LAST)


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def make_loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def cut(path: Path) -> None:
    path.unlink()
    path.write_bytes(b"PK")


def break_seal(path: Path) -> None:
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[:-64] + bytes(64))


def make_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("damage", [make_folder, make_loop, make_pipe, cut, break_seal])
def test_the_newest_whole_checkpoint_is_taken(
    damage: Callable[[Path], None], tmp_path: Path
) -> None:
    saved(tmp_path, [2, 4])
    damage(tmp_path / files.LAST)
    found = files.newest_valid(tmp_path)
    assert found == tmp_path / files.STEP.format(4)
    damage(tmp_path / files.STEP.format(4))
    found = files.newest_valid(tmp_path)
    assert found == tmp_path / files.STEP.format(2)


def test_a_disk_that_fails_hides_one_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path, [2])
    whole = Path.open

    def fail(path: Path, *args: Any) -> Any:
        if path.name == files.LAST:
            raise OSError(5, "Input/output error")
        return whole(path, *args)

    monkeypatch.setattr(Path, "open", fail)
    assert files.newest_valid(tmp_path) == tmp_path / files.STEP.format(2)


class Hostile:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch hacked",)


@pytest.mark.parametrize("inside", [Hostile(), {"a": Hostile()}, [torch.nn.Linear(1, 1)]])
def test_a_hostile_pickle_is_refused_without_advice_to_load_it(
    inside: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x.ckpt"
    for protocol in (None, 0):
        buffer = BytesIO()
        if protocol is None:
            torch.save(inside, buffer)
            seal_zip(buffer)
        else:
            buffer.write(pickle.dumps(inside, protocol))
            buffer.write(seal(buffer.getvalue()))
        path.write_bytes(buffer.getvalue())
        with pytest.raises(files.DamagedCheckpoint, match="which could run code") as caught:
            files.read(path)
        assert "weights_only" not in str(caught.value)
    assert not (tmp_path / "hacked").exists()


def spoil(run: Path, value: float) -> None:
    """Make one weight of every checkpoint NaN or infinite, in raw and averaged weights."""
    for path in (run / "checkpoints").glob("*.ckpt"):
        checkpoint = files.read(path)
        for name in ("denoiser.network", "ema_denoiser.network"):
            key = next(key for key in checkpoint["state_dict"] if key.startswith(name))
            checkpoint["state_dict"][key].view(-1)[0] = value
        files.write(checkpoint, path)


@pytest.mark.slow
@pytest.mark.parametrize("value", [torch.nan, pytest.param(-torch.inf, marks=pytest.mark.long)])
def test_weights_that_are_not_finite_are_told(value: float, call: Call, trained: Path) -> None:
    spoil(trained, value)
    for command, words in (
        ("sample", ["checkpoint=last", "num_samples=1"]),
        ("sample", ["checkpoint=last", "weights=raw", "num_samples=1"]),
        ("export", ["checkpoint=last"]),
        ("evaluate", ["checkpoint=last"]),
        ("train", ["resume=last"]),
    ):
        assert_user_error(call(command, *words), "weights that are not finite")


@pytest.mark.slow
def test_a_checkpoint_without_its_step_is_refused(call: Call, trained: Path) -> None:
    path = trained / "checkpoints" / "last.ckpt"
    content = files.read(path)
    del content["global_step"]
    files.write(content, path)
    for word in (f"resume={trained}", f"resume={path}"):
        assert_user_error(call("train", word), "no denoiser, or no step")


@pytest.mark.slow
def test_a_run_goes_on_where_a_folder_took_the_place_of_its_last_checkpoint(
    resumed_once: Path,
) -> None:
    assert files.read(resumed_once / "checkpoints" / "last.ckpt")["global_step"] == 6


@pytest.mark.slow
@pytest.mark.parametrize("name", ["config.yaml", "composed.yaml"])
def test_aliases_in_a_run_are_refused(name: str, call: Call, trained: Path) -> None:
    path = trained / name
    path.write_text(path.read_text() + nested_aliases())
    assert_user_error(call("train", f"resume={trained}"), f"{name} is not readable YAML")
    if name == "config.yaml":
        assert_user_error(call("sample", f"checkpoint={trained}"), "is not readable YAML")


OUTSIDE = {
    "callbacks.samples.directory": "/tmp/evil",
    "callbacks.numerics.path": "/tmp/evil.jsonl",
    "callbacks.checkpoints.directory": "../evil",
    "logger.csv.save_dir": "/tmp/evil",
    "trainer.default_root_dir": "/tmp/evil",
    "data.cache_path": "/tmp/evil",
    "data.path": "/tmp/evil",
}


@pytest.mark.parametrize("key", OUTSIDE)
def test_a_stranger_s_run_writes_nowhere_else(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "outputs" / "run"
    config: dict[str, Any] = {
        "callbacks": {"samples": {"directory": str(run / "samples")}},
        "data": {"source": {"_target_": "MovingDigits"}, "path": "data/digits"},
    }
    config["callbacks"]["quality"] = {"extractor": {"path": "/weights/i3d.pt"}}  # which is read
    check_places(config, run, ())
    root, _, name = key.rpartition(".")
    node = config
    for part in root.split("."):
        node = node.setdefault(part, {})
    node[name] = OUTSIDE[key]
    with pytest.raises(UserError, match="lies outside outputs/run and data/"):
        check_places(config, run, ())
    check_places(config, run, {key})
    node[name] = "data/elsewhere" if root == "data" else str(run / "elsewhere")
    check_places(config, run, ())


def test_a_cache_that_is_there_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = {"data": {"cache_path": "../cache", "path": "/gifs", "source": {"_target_": "Folder"}}}
    (tmp_path / ".." / "cache" / "1").mkdir(parents=True)
    with pytest.raises(UserError, match="add data"):
        check_places(config, tmp_path / "run", ())
    (tmp_path / ".." / "cache" / "1" / "manifest.json").touch()  # or one deeper, of a list's part
    check_places(config, tmp_path / "run", ())


@pytest.mark.slow
def test_a_stranger_s_run_is_refused_by_resume_and_evaluate(call: Call, trained: Path) -> None:
    evil = trained.parents[1] / "evil"
    for name in ("config.yaml", "composed.yaml"):
        stored = yaml.safe_load((trained / name).read_text())
        stored.get("config", stored)["data"]["cache_path"] = str(evil)
        (trained / name).write_text(yaml.safe_dump(stored))
    assert_user_error(call("train", f"resume={trained}"), "lies outside", f"data.cache_path={evil}")
    assert_user_error(call("evaluate", f"checkpoint={trained}"), "lies outside")
    assert not evil.exists()
    status = json.loads((trained / "status.json").read_text())
    assert status["status"] == "finished"

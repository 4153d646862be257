"""python sample.py and evaluate.py: all they need is in the run directory."""

import json
import shutil
from io import BytesIO
from pathlib import Path

import pytest
import torch
import yaml

from ddpm_lightning.data.gif import decode
from ddpm_lightning.files.checkpoints import write
from ddpm_lightning.files.sealed import seal_zip
from tests.commands import TINY, Call, assert_user_error, newest_run

pytestmark = pytest.mark.slow  # as a whole, not one by one


def test_a_run_is_sampled_wherever_it_lies(call: Call, trained: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.move(trained, moved)
    shutil.rmtree(tmp_path / "gifs")
    result = call("sample", f"checkpoint={moved}", "sampler=heun", "num_samples=3", "output=out")
    assert result.code == 0, result.err
    singles = sorted((tmp_path / "out" / "clips").iterdir())
    assert [decode(path.read_bytes()).frames.shape for path in singles] == [(4, 8, 8, 3)] * 3
    assert len(decode((tmp_path / "out" / "grid.gif").read_bytes()).frames) == 4
    assert "step 4, ema weights" in result.out


def test_samples_depend_on_seed_and_weights_alone(
    call: Call, trained: Path, tmp_path: Path
) -> None:
    def grid(name: str, *words: str) -> bytes:
        result = call("sample", f"checkpoint={trained}", f"output={name}", "num_samples=2", *words)
        assert result.code == 0, result.err
        return (tmp_path / name / "grid.gif").read_bytes()

    first = grid("a", "seed=5")
    assert grid("b", "seed=5") == first
    assert grid("c", "seed=6") != first
    again = call("sample", f"checkpoint={trained}", "output=a")
    assert_user_error(again, "a already holds samples")


def test_a_clip_is_the_same_in_any_batch(call: Call, trained: Path, tmp_path: Path) -> None:
    for name, size in (("whole", 3), ("parts", 2)):
        words = ["num_samples=3", f"batch_size={size}", "sampler.num_evaluations=2"]
        result = call("sample", f"checkpoint={trained}", f"output={name}", *words)
        assert result.code == 0, result.err
        assert "2 network calls each" in result.out
    for clip in sorted((tmp_path / "whole" / "clips").iterdir()):
        frames = [
            decode((tmp_path / name / "clips" / clip.name).read_bytes()).frames.astype(int)
            for name in ("whole", "parts")
        ]
        # Sums over another batch are rounded otherwise: a level of grey at most.
        assert abs(frames[0] - frames[1]).max() <= 1


def test_more_steps_than_the_chain_has_are_refused(call: Call, trained: Path) -> None:
    result = call("sample", f"checkpoint={trained}", "sampler.num_evaluations=60")
    assert_user_error(result, "60 intervals are more than the 50 steps")


FEW_TERMS = ["measure.bits.bound.num_terms=5", "measure.bits.flow.solver.num_steps=2"]


def test_bits_are_measured_by_two_likelihoods(call: Call, trained: Path) -> None:
    words = ["measure=bits", "likelihood/solver@measure.bits.flow.solver=heun", *FEW_TERMS]
    pair = ["likelihood@measure.bits.bound=pair"]
    for extra, kind in (([], ".VariationalBound"), (pair, ".PairBound")):
        result = call("evaluate", f"checkpoint={trained}", *words, *extra)
        assert result.code == 0, result.err
        bound, flow = json.loads((trained / "evaluation" / "bits.json").read_text())
        assert (bound["name"], flow["name"]) == ("bits/bound", "bits/flow")
        assert bound["settings"]["bound"]["_target_"].endswith(kind)
        for card in (bound, flow):
            assert card["value"] == pytest.approx(card["facts"]["nats_per_value"] / 0.6931472)
            assert card["facts"]["num_clips"] >= 1
    assert "bits per value" in result.out


def test_a_likelihood_without_terms_is_refused(call: Call, trained: Path) -> None:
    words = ["measure=bits", "measure.bits.bound.num_terms=0"]
    assert_user_error(call("evaluate", f"checkpoint={trained}", *words), "num_terms", "got 0")


def test_evaluation_is_reproducible_and_covers_the_weights_that_are_named(
    call: Call, trained: Path
) -> None:
    words = [f"checkpoint={trained}", "measure=trained_loss", "measure.trained_loss.num_draws=8"]
    first = call("evaluate", *words, "weights=[raw,ema]")
    assert first.code == 0, first.err
    cards = json.loads((trained / "evaluation" / "trained_loss.json").read_text())
    assert call("evaluate", *words, "weights=[raw,ema]").out == first.out
    assert json.loads((trained / "evaluation" / "trained_loss.json").read_text()) == cards
    raw, ema = cards
    assert [card["run"]["weights"] for card in cards] == ["raw", "ema"]
    assert raw["value"] != ema["value"]
    assert call("evaluate", *words, "output=cards").code == 0  # averaged weights by default
    (card,) = json.loads(Path("cards/trained_loss.json").read_text())
    assert card["value"] == ema["value"]


def test_the_error_at_fixed_levels_is_the_mean_of_its_rows(call: Call, trained: Path) -> None:
    result = call("evaluate", f"checkpoint={trained}")
    assert result.code == 0, result.err
    assert "log-SNR" in result.out
    (card,) = json.loads((trained / "evaluation" / "levels.json").read_text())
    levels = card["facts"]["by_level"]
    assert sum(row["num_triples"] for row in levels) >= 264
    mean = sum(row["weighted"] for row in levels) / len(levels)
    assert mean == pytest.approx(card["value"])


@pytest.mark.long
def test_evaluation_finds_data_that_has_moved(call: Call, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "gifs").rename(tmp_path / "moved")
    lost = call("evaluate", f"checkpoint={trained}", "data.cache_path=other")
    assert_user_error(lost, "gifs")
    found = call("evaluate", f"checkpoint={trained}", "data.path=moved", "data.cache_path=other")
    assert found.code == 0, found.err


def test_a_missing_checkpoint_is_named(call: Call) -> None:
    assert_user_error(call("sample", "checkpoint=outputs/nowhere"), "outputs/nowhere", "give a run")
    assert_user_error(call("sample"), "checkpoint must be given")
    assert_user_error(call("sample", "checkpoint=last"), "no run")


def test_a_foreign_checkpoint_is_refused(call: Call, trained: Path, tmp_path: Path) -> None:
    file = trained / "checkpoints" / "best.ckpt"
    write({"state_dict": {"layer.weight": torch.zeros(2)}}, file)
    assert_user_error(call("sample", f"checkpoint={file}"), "not a checkpoint of ddpm_lightning")
    for content in (b"GIF89a, really", b"", b"\x80\x02.", bytes(100)):
        file.write_bytes(content)
        assert_user_error(call("sample", f"checkpoint={file}"), "is damaged")
    lonely = tmp_path / "lonely" / "x.ckpt"
    lonely.parent.mkdir()
    write({}, lonely)
    assert_user_error(call("sample", f"checkpoint={lonely}"), "not a run of ddpm_lightning")


def test_a_checkpoint_that_runs_code_is_refused(call: Call, trained: Path, tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.mkdir, (tmp_path / "attacked",)  # type: ignore[return-value]

    file = trained / "checkpoints" / "best.ckpt"
    buffer = BytesIO()
    torch.save({"state_dict": Attack()}, buffer)
    seal_zip(buffer)
    file.write_bytes(buffer.getvalue())
    assert_user_error(call("sample", f"checkpoint={file}"), "is not a checkpoint")
    assert not (tmp_path / "attacked").exists()


@pytest.mark.parametrize(
    "foreign",
    [
        pytest.param("os.system", marks=pytest.mark.long),
        # allowed packages import others: a path through one must not lead out of it
        pytest.param(
            "lightning.pytorch.strategies.launchers.subprocess_script.subprocess.Popen",
            marks=pytest.mark.long,
        ),
        "torch.optim.adamw.torch.hub.load",
    ],
)
def test_a_configuration_that_names_foreign_code_is_refused(
    foreign: str, call: Call, trained: Path
) -> None:
    config = trained / "config.yaml"
    target = "ddpm_lightning.networks.unet3d.UNet3D"
    config.write_text(config.read_text().replace(target, foreign))
    assert_user_error(call("sample", f"checkpoint={trained}"), foreign, "not a")


@pytest.mark.parametrize("name", ["config.yaml", "composed.yaml"])
def test_a_stored_interpolation_is_not_resolved(
    name: str, call: Call, trained: Path, tmp_path: Path
) -> None:
    """It could build anything: here a file."""
    attack = "${oc.create:{_target_: pathlib.Path.touch, _args_: [%s]}}" % (tmp_path / "attacked")
    escaped = attack if name == "config.yaml" else attack.replace("${", "\\${")
    stored = yaml.safe_load((trained / name).read_text())
    stored.get("config", stored)["data"]["cache_path"] = escaped
    (trained / name).write_text(yaml.safe_dump(stored))
    command = "evaluate checkpoint" if name == "config.yaml" else "train resume"
    result = call(command.split(maxsplit=1)[0], f"{command.split()[1]}={trained}")
    assert_user_error(result, "data.cache_path", "give the value itself")
    assert not (tmp_path / "attacked").exists()


@pytest.mark.parametrize(
    "model", [None, *(pytest.param(m, marks=pytest.mark.long) for m in (3, {"denoiser": None}))]
)
def test_a_configuration_without_a_model_is_refused(
    model: object, call: Call, trained: Path
) -> None:
    stored = yaml.safe_load((trained / "config.yaml").read_text())
    (trained / "config.yaml").write_text(yaml.safe_dump(stored | {"model": model}))
    assert_user_error(call("sample", f"checkpoint={trained}"), "config.yaml")


@pytest.mark.long
def test_a_run_without_averages_is_sampled_and_evaluated_raw(call: Call, tmp_path: Path) -> None:
    assert call("train", *TINY, "logger=csv", "~callbacks.ema").code == 0
    run = f"checkpoint={newest_run(tmp_path)}"
    assert_user_error(call("sample", run), "holds no weights ema, but raw")
    assert call("sample", run, "weights=raw", "num_samples=1").code == 0
    result = call("evaluate", run, "measure=trained_loss")
    assert result.code == 0, result.err
    assert "raw" in result.out
    assert "ema" not in result.out
    assert_user_error(call("evaluate", run, "weights=ema"), "holds no weights ema, but raw")


def test_a_run_of_an_earlier_version_is_refused(call: Call, trained: Path) -> None:
    """One whose model has no node `denoiser`."""
    for name in ("config.yaml", "composed.yaml"):
        stored = yaml.safe_load((trained / name).read_text())
        model = stored.get("config", stored)["model"]
        model |= model.pop("denoiser")
        (trained / name).write_text(yaml.safe_dump(stored))
    for command, key in (
        *((name, "checkpoint") for name in ("sample", "evaluate", "export")),
        ("train", "resume"),
    ):
        result = call(command, f"{key}={trained}")
        assert_user_error(result, "config.yaml is not the configuration", "an earlier version")
        assert len(result.err.splitlines()) == 1


def test_another_architecture_is_named(call: Call, trained: Path) -> None:
    config = trained / "config.yaml"
    config.write_text(config.read_text().replace("base_width: 16", "base_width: 32"))
    assert_user_error(
        call("sample", f"checkpoint={trained}"),
        "another architecture",
        "[64, 32]) from checkpoint, the shape in current model is torch.Size([128, 32])",
    )


def test_bad_options_are_refused(call: Call, trained: Path) -> None:
    run = f"checkpoint={trained}"
    assert_user_error(call("sample", run, "weights=best"), "no weights best, but raw, ema")
    assert_user_error(call("sample", run, "num_samples=0"), "num_samples=0")
    assert_user_error(call("sample", run, "num_samples=many"), "num_samples='many'", "integer")
    assert_user_error(call("sample", run, "seed=-1"), "seed=-1")
    assert_user_error(call("sample", run, "device=abacus"), "device=abacus")
    assert_user_error(call("sample", run, "sampler=dim"), "did you mean sampler=ddim?")
    draws = "measure.trained_loss.num_draws=0"
    assert_user_error(call("evaluate", run, draws), draws, "greater than 0")


@pytest.mark.long
def test_averages_are_sampled_by_name_and_rebuilt_by_length(call: Call, tmp_path: Path) -> None:
    power = "{_target_: ddpm_lightning.averages.PowerDecay, relative_length: %s}"
    words = [f"+callbacks.ema.averages.p{n}={power % value}" for n, value in ((5, 0.05), (10, 0.1))]
    result = call("train", *TINY, "logger=csv", *words, "callbacks.ema.snapshot_every_n_steps=1")
    assert result.code == 0, result.err
    run = [f"checkpoint={newest_run(tmp_path)}", "num_samples=1"]
    grids = {}
    for weights in ("raw", "ema", "p5", "p10", "0.08", "0.1"):
        result = call("sample", *run, f"weights={weights}", f"output=of_{weights}")
        assert result.code == 0, result.err
        assert f"step 4, {weights} weights" in result.out
        grids[weights] = (tmp_path / f"of_{weights}" / "grid.gif").read_bytes()
    assert grids["0.1"] == grids["p10"]  # it is one of the snapshots
    assert_user_error(call("sample", *run, "weights=0.4"), "relative_length must lie in")
    (Path(run[0].split("=")[1]) / "averages").rename(tmp_path / "gone")
    assert_user_error(
        call("sample", *run, "weights=0.08", "output=x"), "no snapshots", "PowerDecay"
    )

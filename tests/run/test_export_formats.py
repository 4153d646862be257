"""Formats of export.py for elsewhere: what others load equals what we have."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from ddpm_lightning.conditions.label import Label
from ddpm_lightning.denoiser import Denoiser
from ddpm_lightning.level import Level
from ddpm_lightning.networks.unet3d import UNet3D
from ddpm_lightning.noise.cosine import CosineSchedule
from ddpm_lightning.objectives.velocity import VelocityObjective
from ddpm_lightning.processes.continuous import VariancePreservingProcess
from ddpm_lightning.processes.standard import StandardProcess
from ddpm_lightning.run.directory.checkpoint import choose_denoiser, find_run
from ddpm_lightning.run.exchange.export_program import FACTS, trace
from ddpm_lightning.run.exchange.scheduler import build_scheduler
from tests.commands import Call, assert_user_error
from tests.pipelines import save_pipeline
from tests.problems import process_under

pytestmark = pytest.mark.slow  # as a whole


def rarely(*values: Any) -> Any:
    """A schedule that only make test-long tries: loading each of them is test_pipeline's."""
    return pytest.param(*values, marks=pytest.mark.long)


LOG_SNR = torch.tensor([-50.0, -12.0, 0.0, 12.0, 50.0])


def test_a_program_takes_any_number_of_clips_and_their_conditions() -> None:
    """At both ends of log-SNR and beyond; traced with two clips."""
    label = Label(["a", "b", "c"])
    network = UNet3D(
        1,
        base_width=8,
        width_multipliers=[1],
        num_blocks=[1],
        spatial_attention=["full"],
        temporal_attention=[True],
        head_width=8,
        zero_exits=False,
        vector_width=label.vector_width,
    )
    denoiser = Denoiser(
        network,
        StandardProcess(CosineSchedule(50)),
        VelocityObjective(),
        conditions={"label": label},
    ).eval()
    program = trace(denoiser, (1, 2, 4, 4)).module()
    x = torch.randn(5, 1, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    conditions = denoiser.conditions.encode([{"label": name} for name in "abcab"])
    with torch.no_grad():
        expected = denoiser.denoise_at(x, Level.at(LOG_SNR), **conditions)
        got = program(x, LOG_SNR, conditions)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
    assert (expected - x).abs().max() > 0.1


@pytest.mark.long
def test_the_program_of_a_run_is_its_denoiser(call: Call, trained: Path) -> None:
    result = call("export", f"checkpoint={trained}", "format=torch_export")
    assert result.code == 0, result.err
    facts: dict[str, Any] = {FACTS: ""}
    program = torch.export.load(trained / "ema.pt2", extra_files=facts).module()
    denoiser = choose_denoiser(find_run(str(trained), Path("outputs")), "ema")[0]
    x = torch.randn(5, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = denoiser.denoise_at(x, Level.at(LOG_SNR))
        torch.testing.assert_close(program(x, LOG_SNR, {}), expected, rtol=1e-5, atol=1e-6)
    read = json.loads(facts[FACTS])
    assert read["std"] == pytest.approx(float(denoiser.statistics.std))
    assert (read["size"], read["num_frames"], read["step"]) == (8, 4, 4)


def edit_model(run: Path, **nodes: Any) -> None:
    """Change nodes of a run's denoiser, which its weights do not depend on."""
    path = run / "config.yaml"
    config = yaml.safe_load(path.read_text())
    config["model"]["denoiser"] |= nodes
    path.write_text(yaml.safe_dump(config))


def test_a_scheduler_of_theirs_has_our_chain(call: Call, trained: Path) -> None:
    """The cosine schedule as the numbers it is: theirs is clipped at another beta. Theirs of a
    pipeline are tested with it, below.
    """
    diffusers = pytest.importorskip("diffusers", reason="needs the extra diffusers")
    result = call("export", f"checkpoint={trained}", "format=diffusers")
    assert result.code == 0, result.err
    assert "lacking        unet/ and model_index.json: diffusers has no UNet3D" in result.out
    scheduler = diffusers.DDPMScheduler.from_pretrained(trained / "diffusers" / "scheduler")
    process = choose_denoiser(find_run(str(trained), Path("outputs")), "ema")[0].process
    alpha_bar = process.level(torch.arange(1, 51)).alpha.square().float()
    torch.testing.assert_close(scheduler.alphas_cumprod, alpha_bar, rtol=1e-4, atol=1e-9)
    assert scheduler.config.prediction_type == "v_prediction"
    again = call("export", f"checkpoint={trained}", "format=diffusers")
    assert_user_error(again, "already holds files")


def test_without_their_package_its_extra_is_named(
    call: Call, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)  # what Python does for one that is lacking
    result = call("export", f"checkpoint={trained}", "format=diffusers")
    assert_user_error(result, "pip install 'ddpm_lightning[diffusers]'")
    assert not (trained / "diffusers").exists()


def test_what_they_have_no_equivalent_of_is_refused(call: Call, trained: Path) -> None:
    pytest.importorskip("diffusers", reason="needs the extra diffusers")
    words = [f"checkpoint={trained}", "format=diffusers", "output=out"]
    home = "ddpm_lightning.objectives.karras.KarrasObjective"
    edit_model(trained, objective={"_target_": home})
    assert_user_error(call("export", *words), "no scheduler of diffusers has KarrasObjective")
    velocity = "ddpm_lightning.objectives.velocity.VelocityObjective"
    schedule = {"_target_": "ddpm_lightning.noise.linear.LinearSchedule", "num_steps": 50}
    process = {"_target_": "ddpm_lightning.processes.median.MedianProcess", "schedule": schedule}
    edit_model(trained, objective={"_target_": velocity}, process=process)
    assert_user_error(call("export", *words), "no scheduler of diffusers has MedianProcess")
    schedule = {"_target_": "ddpm_lightning.noise.hybrid.HybridSchedule", "num_steps": 1000}
    process = {
        "_target_": "ddpm_lightning.processes.standard.StandardProcess",
        "schedule": schedule,
    }
    edit_model(trained, process=process)
    assert_user_error(call("export", *words), "in float32, is 0 at 247 of its 1000 steps")


@pytest.mark.parametrize("noise", ["cosine", "flow"])
def test_a_continuous_process_becomes_a_chain_that_can_be_walked(noise: str) -> None:
    """Its last beta, 1 - 1e-16 and less in float64, is 1 in float32."""
    pytest.importorskip("diffusers", reason="needs the extra diffusers")
    process = process_under(VariancePreservingProcess, noise)
    betas = build_scheduler(process, VelocityObjective()).betas
    assert float(betas[-1]) == pytest.approx(0.999999, abs=1e-7)
    assert betas[-1] < 1


@pytest.mark.parametrize(
    ("prediction_type", "options"),
    [
        ("epsilon", {"beta_schedule": "linear"}),
        rarely("sample", {"beta_schedule": "scaled_linear"}),
        rarely("v_prediction", {"beta_schedule": "squaredcos_cap_v2"}),
        rarely("epsilon", {"trained_betas": torch.linspace(0.3, 0.01, 50).tolist()}),
    ],
)
def test_a_pipeline_goes_back_whole(
    prediction_type: str, options: dict[str, Any], call: Call, tmp_path: Path
) -> None:
    diffusers = pytest.importorskip("diffusers", reason="needs the extra diffusers")
    folder = save_pipeline(tmp_path / "theirs", prediction_type=prediction_type, **options)
    result = call("export", f"checkpoint={folder}", "format=diffusers", "output=back")
    assert result.code == 0, result.err
    one, other = (diffusers.DDPMPipeline.from_pretrained(p) for p in (folder, tmp_path / "back"))
    for name, value in one.unet.state_dict().items():
        assert torch.equal(value, other.unet.state_dict()[name])
    own = {k: v for k, v in one.unet.config.items() if k[0] != "_"}
    assert own == {k: v for k, v in other.unet.config.items() if k[0] != "_"}
    torch.testing.assert_close(one.scheduler.betas, other.scheduler.betas, rtol=1e-5, atol=1e-9)
    for key in ("beta_schedule", "prediction_type", "num_train_timesteps"):
        assert one.scheduler.config[key] == other.scheduler.config[key]

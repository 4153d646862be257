"""The module is wiring: the loss gets the clips at the times that were drawn, on any process."""

import pytest
import torch
from torch import Tensor

from ddpm_lightning.data.clip import to_float
from ddpm_lightning.data.dataset import Batch
from ddpm_lightning.denoiser import Denoiser
from ddpm_lightning.evaluation.levels import LevelErrors
from ddpm_lightning.evaluation.losses import LossByLogSNR, fixed_pairs
from ddpm_lightning.level import Level, log_snr_floor
from ddpm_lightning.losses.base import Loss
from ddpm_lightning.networks.unet3d import UNet3D
from ddpm_lightning.processes.base import GaussianProcess, Time
from ddpm_lightning.processes.standard import StandardProcess
from ddpm_lightning.training.compilation import PAYS_FROM, pays
from ddpm_lightning.training.module import DiffusionModule
from tests.problems import PROCESSES, ThirdOrderProcess, build, options, process_under

pytestmark = pytest.mark.slow  # as a whole: every loss is trained

KINDS = [*PROCESSES, ThirdOrderProcess]
TIMES = [name for name in options("times") if name != "frames"]
every_loss = pytest.mark.parametrize("loss", options("loss"))


def module(process: GaussianProcess, loss: Loss, times: str = "uniform_t") -> DiffusionModule:
    torch.manual_seed(0)
    network = UNet3D(
        channels=1,
        out_channels=loss.num_outputs,
        base_width=16,
        width_multipliers=[1],
        patch=1,
        num_blocks=[1],
        spatial_attention=["none"],
        temporal_attention=[True],
        head_width=8,
    )
    return DiffusionModule(
        Denoiser(network, process, build("objective", "velocity")),
        loss=loss,
        times=build("times", times),
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=1e-2),
        warmup_steps=1,
        cooldown=0.0,
    )


def batch() -> Batch:
    """Four clips of three frames, 4 x 4; seed 0."""
    generator = torch.Generator().manual_seed(0)
    clips = torch.randint(256, (4, 3, 4, 4, 1), generator=generator, dtype=torch.uint8)
    return Batch(
        clips, index=torch.arange(4), annotations=[{} for _ in range(4)], number=[0, 1, 2, 3]
    )


class Recorder(Loss):
    """Keeps its arguments, and returns 1, 2, 3, 4."""

    def __call__(
        self,
        denoiser: Denoiser,
        x_0: Tensor,
        t: Tensor,
        level: Level,
        noise: Tensor,
        **conditions: Tensor,
    ) -> Tensor:
        self.denoiser, self.x_0, self.t, self.level, self.noise = denoiser, x_0, t, level, noise
        return torch.arange(1.0, 1.0 + len(x_0))


@pytest.mark.filterwarnings("ignore:You are trying to .self.log")  # there is no trainer
@pytest.mark.parametrize(
    ("process_type", "times"),
    [*((kind, "uniform_t") for kind in KINDS), *((StandardProcess, name) for name in TIMES[1:])],
)
def test_the_loss_is_asked_at_the_drawn_times_and_averaged(
    process_type: type[GaussianProcess], times: str
) -> None:
    process = process_under(process_type, "cosine", 50)
    recorder = Recorder()
    model = module(process, recorder, times)
    drawn: list[Tensor] = []
    draw = model.times.draw
    model.times.draw = lambda *given: drawn.append(draw(*given)) or drawn[-1]  # type: ignore
    model.prepare_draws(batch(), step=0)
    assert float(model.training_step(batch(), 0)) == 2.5
    assert recorder.denoiser is model.denoiser
    assert recorder.denoiser.process is process
    assert torch.equal(recorder.x_0, to_float(batch().clip))
    assert torch.equal(recorder.t, drawn[0])
    assert all(map(torch.equal, recorder.level, process.level(drawn[0])))
    assert recorder.noise.shape == recorder.x_0.shape
    assert recorder.noise.dtype == torch.float32


@pytest.mark.filterwarnings("ignore:You are trying to .self.log")
@pytest.mark.parametrize("loss", ["simple", "min_snr", "uncertainty"])
def test_frames_at_levels_of_their_own_are_averaged_over_those_that_count(loss: str) -> None:
    process = process_under(StandardProcess, "cosine", 50)
    model = module(process, build("loss", loss), "frames")
    model.prepare_draws(batch(), step=3)  # of which one clip has a context
    value = model.training_step(batch(), 0).item()
    log_snr, losses = model.trained.log_snr, model.trained.loss
    assert log_snr.shape == losses.shape == (4, 3)
    context = losses.isnan()
    assert 0 < int(context.sum()) < 12
    assert (log_snr[context] >= 4).all()
    assert value == pytest.approx(float(losses.nanmean(1).mean()), rel=1e-6)


@pytest.mark.parametrize("loss", ["vlb", "hybrid_vlb"])
def test_bounds_are_refused_where_frames_have_levels_of_their_own(loss: str) -> None:
    process = process_under(StandardProcess, "cosine", 50)
    with pytest.raises(ValueError, match=r"clips at one level, .* choose loss=simple, or") as error:
        module(process, build("loss", loss), "frames")
    assert "\n" not in str(error.value)


@pytest.mark.filterwarnings("ignore:You are trying to .self.log")
def test_what_a_loss_learns_is_trained_and_saved() -> None:
    model = module(process_under(StandardProcess, "cosine", 50), build("loss", "uncertainty"))
    model.prepare_draws(batch(), step=0)
    model.training_step(batch(), 0).backward()
    model.optimizer.step()
    saved = model.state_dict()
    assert (saved["loss.weight"] != 0).all()
    assert saved["loss.bias"] != 0


@pytest.mark.filterwarnings("ignore:You are trying to .self.log")
@pytest.mark.parametrize("loss", ["simple", "min_snr", "soft_min_snr", "edm"])
def test_a_step_asks_the_process_for_one_level(loss: str, monkeypatch: pytest.MonkeyPatch) -> None:
    process = process_under(PROCESSES[0], "cosine", 50)
    model = module(process, build("loss", loss))
    # The axis is built once, by asking for levels.
    process.axis(log_snr_floor(batch().clip.shape))
    levels: list[Level] = []
    level = process.level

    def counted(t: Time) -> Level:
        levels.append(level(t))
        return levels[-1]

    monkeypatch.setattr(process, "level", counted)
    model.prepare_draws(batch(), step=0)
    model.training_step(batch(), 0)
    assert len(levels) == 1


def drawn_at(step: int, numbers: list[int], num_parts: int = 1) -> tuple[Tensor, Tensor, float]:
    """t and noise of a step on samples with these numbers, and a draw of torch's own generator."""
    recorder = Recorder()
    model = module(process_under(StandardProcess, "cosine", 1000), recorder, "stratified")
    clips, annotations = batch().clip[: len(numbers)], batch().annotations[: len(numbers)]
    samples = batch()._replace(clip=clips, annotations=annotations, number=numbers)
    model.prepare_draws(samples, step, num_parts)
    other = float(torch.rand(()))
    model.training_step(samples, 0)
    return recorder.t, recorder.noise, other


@pytest.mark.filterwarnings("ignore:You are trying to .self.log")
def test_draws_depend_on_the_step_and_the_samples_numbers_alone() -> None:
    torch.manual_seed(1)
    t, noise, other = drawn_at(7, [8, 9, 10, 11])
    torch.manual_seed(2)
    again = drawn_at(7, [8, 9, 10, 11])
    assert torch.equal(t, again[0])
    assert torch.equal(noise, again[1])
    assert other == again[2]
    for first, second in ((8, 10), (9, 11)):  # two devices with two of the four samples each
        part = drawn_at(7, [first, second], num_parts=2)
        rows = [first - 8, second - 8]
        assert torch.equal(part[0], t[rows])
        assert torch.equal(part[1], noise[rows])
    for step, numbers in ((8, [8, 9, 10, 11]), (7, [12, 13, 14, 15])):
        changed = drawn_at(step, numbers)
        assert not torch.equal(changed[0], t)
        assert not any(torch.equal(a, b) for a, b in zip(changed[1], noise, strict=True))
        assert changed[2] != other


# A loss sees log-SNR alone: on one chain each, and one on each process.
@pytest.mark.parametrize(
    ("process_type", "loss"),
    [
        *((StandardProcess, name) for name in options("loss")),
        *(
            pytest.param(kind, "simple", marks=pytest.mark.slow)
            for kind in KINDS
            if kind is not StandardProcess
        ),
    ],
)
def test_a_few_steps_lower_every_loss(process_type: type[GaussianProcess], loss: str) -> None:
    """On one batch at fixed times and noise, and every parameter's gradient stays finite."""
    process = process_under(process_type, "cosine", 50)
    model = module(process, build("loss", loss))
    x_0 = to_float(batch().clip)
    t, noise = torch.tensor([5, 20, 35, 45]), torch.randn_like(x_0)
    optimizer, level = model.optimizer, process.level(t)
    values = []
    for _ in range(12):
        value = model.loss(model.denoiser, x_0, t, level, noise).mean()
        optimizer.zero_grad()
        value.backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
        optimizer.step()
        values.append(value.item())
    assert min(values[-3:]) < 0.9 * values[0]


@every_loss
def test_validation_measures_the_loss_that_is_trained(loss: str) -> None:
    process = process_under(StandardProcess, "cosine", 50)
    model = module(process, build("loss", loss))
    model._val_errors = LevelErrors(num_clips=10_000)  # of which the batch has one
    model._val_losses = LossByLogSNR(model.loss, model.times)
    model.validation_step(batch(), 0)
    x_0 = to_float(batch().clip)
    t, noise = fixed_pairs(model.times, process, batch().index, 0, 1, x_0.shape[1:])
    expected = model.loss(model.denoiser, x_0, t, process.level(t), noise).mean()
    assert model._val_losses.mean() == pytest.approx(expected.item(), rel=1e-5)


def test_the_error_of_validation_is_the_same_under_every_loss() -> None:
    """A network starts at 0, with one output or two."""
    process = process_under(StandardProcess, "cosine", 50)
    errors = []
    for loss in ("simple", "hybrid_vlb"):
        model = module(process, build("loss", loss))
        model._val_errors = LevelErrors(num_clips=4)
        model._val_losses = LossByLogSNR(model.loss, model.times)
        model.validation_step(batch(), 0)
        model._val_errors.finish(model.denoiser)
        errors.append(model._val_errors.mean())
    assert errors[0] == pytest.approx(errors[1], rel=1e-6)


def test_auto_compiles_where_the_run_is_long_enough_on_a_gpu() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert pays("auto", cuda, PAYS_FROM)
    assert not pays("auto", cuda, PAYS_FROM - 1)
    assert not pays("auto", cpu, 10 * PAYS_FROM)
    assert pays(True, cpu, 1)
    assert not pays(False, cuda, 10 * PAYS_FROM)

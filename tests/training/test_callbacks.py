"""Laws of the callbacks: what EMA averages, what Throughput measures, what SampleGrid leaves
alone.
"""

import copy
import csv
import math
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor, nn

from ddpm_lightning.averages import ConstantDecay
from ddpm_lightning.data.dataset import Batch
from ddpm_lightning.data.loader import ClipLoader
from ddpm_lightning.data.order import InOrder, Sample
from ddpm_lightning.denoiser import Denoiser
from ddpm_lightning.evaluation.losses import bin_names, bin_of
from ddpm_lightning.files.checkpoints import by_step, read
from ddpm_lightning.networks.flops import forward_flops
from ddpm_lightning.networks.unet3d import UNet3D
from ddpm_lightning.noise.cosine import CosineSchedule
from ddpm_lightning.objectives.velocity import VelocityObjective
from ddpm_lightning.processes.standard import StandardProcess
from ddpm_lightning.times.uniform_t import UniformTime
from ddpm_lightning.training.callbacks import throughput
from ddpm_lightning.training.callbacks.checkpoints import Checkpoints
from ddpm_lightning.training.callbacks.ema import EMA, distance
from ddpm_lightning.training.callbacks.loss_bins import LossBins
from ddpm_lightning.training.callbacks.numerics import NonFinite, refuse_non_finite
from ddpm_lightning.training.callbacks.throughput import Throughput, gradient_norms
from ddpm_lightning.training.checkpoint_plugin import VerifiedCheckpointIO
from ddpm_lightning.training.loggers import MetricsTable
from ddpm_lightning.training.module import StandardDiffusion
from tests.problems import build

NUM_CLIPS = 8


def tiny_network() -> UNet3D:
    return UNet3D(
        channels=1,
        base_width=16,
        width_multipliers=[1, 2],
        patch=1,
        num_blocks=[1, 1],
        spatial_attention=["none", "full"],
        temporal_attention=[True, True],
        head_width=8,
    )


def small_network() -> UNet3D:
    """One level: as little as trains."""
    return UNet3D(
        channels=1,
        base_width=8,
        width_multipliers=[1],
        patch=1,
        num_blocks=[1],
        spatial_attention=["none"],
        temporal_attention=[True],
        head_width=8,
    )


def module(build_network: Callable[[], UNet3D] = small_network) -> StandardDiffusion:
    torch.manual_seed(0)
    return StandardDiffusion(
        CosineSchedule(20),
        build_network(),
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=1e-2),
        warmup_steps=1,
        cooldown=0.0,
    )


class SlowClips:
    """Random clips; each takes `seconds` to read."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def __getitems__(self, samples: Sequence[Sample]) -> Batch:
        time.sleep(len(samples) * self.seconds)
        index = torch.tensor([sample.item for sample in samples])
        generator = torch.Generator().manual_seed(int(index.sum()))
        shape = (len(samples), 4, 8, 8, 1)
        clip = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        return Batch(clip, index, [{}] * len(samples), index.tolist())

    def digest(self) -> str:
        return "the same"

    def shards(self) -> list[int]:
        return [0] * NUM_CLIPS


def fit(model: pl.LightningModule, seconds: float = 0.0, **settings: object) -> pl.Trainer:
    callbacks = settings.pop("callbacks")
    trainer = pl.Trainer(
        callbacks=callbacks,  # type: ignore[arg-type]
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
        **{"enable_checkpointing": False, "logger": False, "log_every_n_steps": 4, **settings},  # type: ignore[arg-type]
    )
    trainer.fit(model, ClipLoader(SlowClips(seconds), InOrder(NUM_CLIPS, batch_size=2)))
    return trainer


def test_average_equals_the_recursion_in_closed_form() -> None:
    # decay_n = min(decay, (1 + n) / (10 + n)): 2/11, 3/12, then held at 0.28.
    process = StandardProcess(CosineSchedule(4, 0.008, 0.9999))
    network = tiny_network()
    copied = copy.deepcopy(network)
    raw, average = (Denoiser(n, process, VelocityObjective()) for n in (network, copied))
    ema = EMA({"ema": ConstantDecay(0.28)}, "")
    parameter, averaged = network.entry.weight, copied.entry.weight
    with torch.no_grad():
        parameter.fill_(0.0)
        averaged.fill_(0.0)
        expected = 0.0
        for step, decay in enumerate([2 / 11, 3 / 12, 0.28, 0.28], start=1):
            parameter.fill_(float(step))
            ema.update(average, raw, step)
            expected = decay * expected + (1 - decay) * step
            # float32 round-off of four updates
            assert averaged.flatten()[0].item() == pytest.approx(expected, rel=1e-6)


def test_average_is_kept_beside_the_raw_weights_and_follows_optimizer_steps_only() -> None:
    model = module()
    ema = EMA({"ema": ConstantDecay(0.9)}, "")
    updates: list[int] = []
    update = ema.update

    def counted(average: Denoiser, raw: Denoiser, step: int) -> None:
        updates.append(step)
        update(average, raw, step)

    ema.update = counted  # type: ignore[method-assign]
    fit(model, callbacks=[ema], max_epochs=1, accumulate_grad_batches=2)
    assert updates == [1, 2]  # four batches, two optimizer steps
    assert model.inference_denoiser is model.ema_denoiser
    assert not any(p.requires_grad for p in model.ema_denoiser.parameters())
    raw, averaged = model.denoiser.state_dict(), model.ema_denoiser.state_dict()
    assert raw.keys() == averaged.keys()
    assert any(not raw[name].equal(averaged[name]) for name in raw)


def test_without_the_callback_inference_uses_raw_weights() -> None:
    model = module()
    assert model.inference_denoiser is model.denoiser


@pytest.mark.slow
def test_data_wait_is_the_share_of_time_spent_in_the_loader() -> None:
    # Reading a batch takes 2 x 0.1 s. Steps hide a part of it, but not of the first one's.
    trainer = fit(module(), seconds=0.1, callbacks=[Throughput()], max_epochs=1)
    wait = float(trainer.callback_metrics["train/data_wait"])
    rate = float(trainer.callback_metrics["train/clips_per_s"])
    seconds = 8 / rate
    loader = trainer.train_dataloader
    assert isinstance(loader, ClipLoader)
    waited = loader.wait_seconds
    assert waited > 0.19  # sleep may end a little early
    assert wait == pytest.approx(waited / seconds, rel=1e-4)  # metrics are float32
    assert wait < 1


@pytest.mark.slow
def test_operations_are_counted_from_the_graph_and_rated_by_the_device(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(throughput, "peak_flops", lambda device: 1e12)
    trainer = fit(module(), callbacks=[Throughput()], max_epochs=1)
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    per_clip = 3 * forward_flops(small_network(), (1, 1, 4, 8, 8))
    expected = per_clip * metrics["train/clips_per_s"] / 1e12
    assert metrics["train/tflops"] == pytest.approx(expected, rel=1e-4)  # metrics are float32
    assert metrics["train/mfu"] == pytest.approx(expected, rel=1e-4)


def test_gradient_norms_are_those_of_blocks_and_of_parameters_of_the_networks_own() -> None:
    network = nn.Module()
    network.pos_embed = nn.Parameter(torch.zeros(2))
    network.entry = nn.Linear(1, 1)
    network.down = nn.ModuleList([nn.Linear(2, 1, bias=False), nn.Linear(2, 1, bias=False)])
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    norms = {block: float(norm) for block, norm in gradient_norms(network).items()}
    root = pytest.approx(math.sqrt(2))
    assert norms == {"pos_embed": root, "entry": root, "down_0": root, "down_1": root}


@pytest.mark.slow
def test_gradient_norm_is_that_of_all_gradients() -> None:
    class Keep(pl.Callback):
        norm: Tensor

        def on_before_optimizer_step(
            self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: object
        ) -> None:
            gradients = [p.grad.flatten() for p in pl_module.parameters() if p.grad is not None]
            self.norm = torch.cat(gradients).norm()

    keep = Keep()
    trainer = fit(module(tiny_network), callbacks=[Throughput(), keep], max_epochs=1)
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert metrics["train/grad_norm"] == pytest.approx(float(keep.norm))
    blocks = {n.removeprefix("grad_norm/"): v for n, v in metrics.items() if "grad_norm/" in n}
    expected = {"entry", "embedding", "down_0", "down_1", "shrink_0", "middle", "middle_exit"}
    assert blocks.keys() == expected | {"up_0", "up_1", "grow_0", "exit"}
    assert sum(norm**2 for norm in blocks.values()) == pytest.approx(float(keep.norm) ** 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("accumulated", "times"), [(1, "stratified"), (2, "stratified"), (2, "frames")]
)
def test_the_training_loss_is_told_by_log_snr(accumulated: int, times: str) -> None:
    """Of frames that have levels of their own, those count that are trained."""

    class Keep(pl.Callback):
        def __init__(self) -> None:
            self.found: list[tuple[float, float]] = []

        def on_train_batch_end(
            self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: object
        ) -> None:
            assert isinstance(pl_module, StandardDiffusion)
            _, log_snr, loss = pl_module.trained
            pairs = zip(log_snr.flatten().tolist(), loss.flatten().tolist(), strict=True)
            self.found += [pair for pair in pairs if math.isfinite(pair[1])]

    keep = Keep()
    settings = {"max_steps": 4, "accumulate_grad_batches": accumulated}
    model = module()
    model.times = build("times", times)
    trainer = fit(model, callbacks=[keep, LossBins()], **settings)
    logged = {n: float(v) for n, v in trainer.callback_metrics.items() if "by_log_snr" in n}
    edges = [-float("inf"), -8, -4, 0, 4, 8, float("inf")]
    if times != "frames":
        assert len(keep.found) == 4 * accumulated * 2
    expected = {}
    for name, (low, high) in zip(bin_names(), pairwise(edges), strict=True):
        if inside := [loss for log_snr, loss in keep.found if low <= log_snr < high]:
            expected[f"train_by_log_snr/{name}"] = sum(inside) / len(inside)
    assert len(expected) > 1
    assert logged == pytest.approx(expected, rel=1e-6)  # float32


@pytest.mark.slow
@pytest.mark.parametrize("every", [1, 3])
def test_a_bin_without_samples_is_left_out_of_a_row(every: int, tmp_path: Path) -> None:
    """Each row holds the bins of the samples since the row before it, and no other."""

    class Keep(pl.Callback):
        def __init__(self) -> None:
            self.bins: list[set[str]] = []

        def on_train_batch_end(
            self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: object
        ) -> None:
            assert isinstance(pl_module, StandardDiffusion)
            names = [bin_names()[i] for i in bin_of(pl_module.trained.log_snr.float())]
            self.bins.append({f"train_by_log_snr/{name}" for name in names})

    keep, table = Keep(), MetricsTable(tmp_path, 0, 1)
    settings: dict[str, Any] = {"max_steps": 12, "log_every_n_steps": every, "logger": table}
    model = module()
    model.times = UniformTime(stratified=False)
    fit(model, callbacks=[keep, LossBins()], **settings)
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    found = [
        {name for name, value in row.items() if "by_log_snr" in name and value} for row in rows
    ]
    windows = [keep.bins[start : start + every] for start in range(0, 12, every)]
    assert found == [set.union(*window) for window in windows]
    assert every > 1 or len({tuple(sorted(names)) for names in found}) > 1


@pytest.mark.parametrize(
    ("first", "others", "refused"),
    [
        ("raw", [], "raw"),
        ("short", ["ema"], "ema"),
        ("ema", ["raw"], "raw"),
        ("0.1", [], "0.1"),
        ("ema", ["last/best"], "last/best"),
    ],
)
def test_averages_have_names_of_their_own(first: str, others: list[str], refused: str) -> None:
    with pytest.raises(ValueError, match=f"cannot be called {refused}: weights=raw, weights=ema"):
        EMA(dict.fromkeys([first, *others], ConstantDecay(0.9)), "")
    EMA(dict.fromkeys(["short", "long"], ConstantDecay(0.9)), "")
    EMA(dict.fromkeys(["ema", "long_2"], ConstantDecay(0.9)), "")


class SpoilWeight(pl.Callback):
    """Sets a weight after step 3: of the raw ones, or of the average."""

    def __init__(self, value: float, average: bool) -> None:
        self.value, self.average = value, average

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: object
    ) -> None:
        assert isinstance(pl_module, StandardDiffusion)
        denoiser = pl_module.ema_denoiser if self.average else pl_module.denoiser
        if trainer.global_step == 3 and denoiser is not None:
            next(iter(denoiser.parameters())).view(-1)[0] = self.value


@pytest.mark.slow
@pytest.mark.parametrize(("value", "average"), [(torch.nan, False), (-torch.inf, True)])
def test_weights_that_are_not_finite_are_not_saved(
    value: float, average: bool, tmp_path: Path
) -> None:
    callbacks = [
        EMA({"ema": ConstantDecay(0.9)}, ""),
        SpoilWeight(value, average),
        Checkpoints(str(tmp_path), 1, None, 10, "val/loss"),
    ]
    plugins = VerifiedCheckpointIO()
    with pytest.raises(NonFinite, match="not finite after step 3, saved weights are from before"):
        fit(module(), callbacks=callbacks, max_steps=4, plugins=plugins, enable_checkpointing=True)
    assert [path.name[-6:-5] for path in by_step(tmp_path)] == ["2", "1"]
    state = read(tmp_path / "last.ckpt")["state_dict"]
    assert all(weight.isfinite().all() for weight in state.values())


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e30, 3e38])
def test_large_weights_are_finite(size: float) -> None:
    """Their squares are not, in float32."""
    weights = [torch.full((9,), size), torch.zeros(0), torch.zeros(3).bfloat16()]
    refuse_non_finite(weights, 1)
    weights[0][4] = torch.inf
    with pytest.raises(NonFinite, match="after step 1"):
        refuse_non_finite(weights, 1)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_leaves_the_others_of_its_bin() -> None:
    class Spoil(pl.Callback):
        def on_train_batch_end(
            self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: object
        ) -> None:
            assert isinstance(pl_module, StandardDiffusion)
            pl_module.trained.loss[0] = torch.nan

    trainer = fit(module(), callbacks=[Spoil(), LossBins()], max_steps=4)
    logged = [float(v) for n, v in trainer.callback_metrics.items() if "by_log_snr" in n]
    assert logged
    assert all(math.isfinite(value) for value in logged)


@pytest.mark.slow
def test_distance_of_the_average_is_relative_to_the_raw_weights() -> None:
    raw = tiny_network()
    average = copy.deepcopy(raw)
    lists = [[p.detach() for p in network.parameters()] for network in (average, raw)]
    assert distance(*lists) == 0
    with torch.no_grad():
        for parameter in average.parameters():
            parameter.mul_(1.25)
    assert float(distance(*lists)) == pytest.approx(0.25, rel=1e-5)  # float32
    trainer = fit(module(), callbacks=[EMA({"ema": ConstantDecay(0.9)}, "")], max_epochs=1)
    assert 0 < float(trainer.callback_metrics["train/ema_distance"]) < 1


def test_learning_rate_is_a_trapezium() -> None:
    model = module()
    model.warmup_steps, model.cooldown = 4, 0.3
    factors = [model.learning_rate_factor(step, num_steps=10) for step in range(11)]
    expected = [1 / 4, 2 / 4, 3 / 4, 1, 1, 1, 1, 1, 2 / 3, 1 / 3, 0]
    assert factors == pytest.approx(expected)

"""Tables and figures of docs/mathematics.md.

    python -m benchmarks.mathematics FOLDER [--num-samples 200000]

Prints the tables in Markdown and writes snr.png and mixture.png to the folder.
"""

import argparse
from itertools import pairwise, product
from math import e, log, pi, prod
from pathlib import Path

import torch
from torch import Tensor

from ddpm_lightning.films.ring import WIDTH, Ring
from ddpm_lightning.level import log_snr_floor
from ddpm_lightning.plots.schedules import save_log_snr
from ddpm_lightning.processes.base import GaussianProcess
from ddpm_lightning.processes.continuous import VariancePreservingProcess
from ddpm_lightning.processes.flow import FlowProcess
from ddpm_lightning.processes.median import MedianProcess
from ddpm_lightning.processes.report import describe
from ddpm_lightning.processes.standard import StandardProcess
from ddpm_lightning.processes.state import state_law
from ddpm_lightning.processes.sub_variance_preserving import SubVariancePreservingProcess
from ddpm_lightning.processes.variance_exploding import VarianceExplodingProcess
from tests.problems import FLOOR, Mixture, build, options, trimodal

MODELS: dict[str, type[GaussianProcess]] = {
    "standard": StandardProcess,
    "median": MedianProcess,
    "continuous": VariancePreservingProcess,
    "sub_vp": SubVariancePreservingProcess,
    "flow": FlowProcess,
    "ve": VarianceExplodingProcess,
}
# Processes of one alpha / sigma differ in the scale of x: these are shown under one schedule.
RESCALED = [("sub_vp", "cosine"), ("flow", "flow"), ("ve", "karras")]
CONTINUOUS = [("continuous", "cosine"), *RESCALED]
EVALUATIONS = (5, 10, 20, 50, 100, 200)
COMPARED = [
    ("standard", "linear"),
    ("standard", "cosine"),
    ("standard", "hybrid"),
    ("median", "linear"),
    ("median", "cosine"),
    ("median", "hybrid"),
]


def process(model: str, noise: str, num_steps: int = 1000) -> GaussianProcess:
    return MODELS[model](build("noise", noise, num_steps=num_steps))


def sampled(data: Mixture, sampler: str, num_evaluations: int, num_samples: int) -> Tensor:
    walker = build("sampler", sampler, "sampler/thresholding=none", num_evaluations=num_evaluations)
    return walker.sample(data, (num_samples,), generator=torch.Generator().manual_seed(0))


def single_steps(data: Mixture, num_samples: int) -> Tensor:
    """Ancestral sampling at every step, also those at which log-SNR rises."""
    walker = build("sampler", "ancestral", "sampler/thresholding=none")
    generator = torch.Generator().manual_seed(0)

    def draw() -> Tensor:
        return torch.randn(num_samples, generator=generator)

    times = torch.arange(int(data.process.axis(FLOOR).last), -1, -1)
    return walker.walk(data, draw() * data.process.level(times[0]).sigma.float(), times, draw)


def row(*cells: object) -> None:
    print("| " + " | ".join(map(str, cells)) + " |")


def header(*cells: str) -> None:
    print()
    row(*cells)
    row(*["---"] * len(cells))


def validator_table() -> None:
    header(
        "process", "noise", "rises", "zero betas", "float32 underflows", "log-SNR at 1 and T",
        "SNR = 1 at t", "outside +-10", "terminal KL (nats/value)", "usable steps",
    )  # fmt: skip
    everywhere = product(("standard", "median", "continuous"), options("noise"))
    for model, noise in [*everywhere, *RESCALED]:
        found = describe(process(model, noise), (1, 1))
        row(
            model, noise, found.num_rises, found.num_zero_betas, found.num_underflows,
            f"{found.log_snr_first:.1f}, {found.log_snr_last:.1f}", found.crossing,
            f"{100 * found.wide_share:.1f} %", f"{found.terminal_nats:.1e}", found.num_usable,
        )  # fmt: skip


def all_steps_table(num_samples: int) -> None:
    header("process", "noise", "sampler", "network calls", "Wasserstein-1")
    for model, noise in COMPARED:
        data = trimodal(process(model, noise))
        samplers = ["ancestral", "midpoint", "pair"] if model == "median" else ["ancestral"]
        for sampler in samplers:
            axis = data.process.state_axis(FLOOR) if sampler == "pair" else data.process.axis(FLOOR)
            calls = int(axis.num_steps)
            x = sampled(data, sampler, calls, num_samples)
            row(model, noise, sampler, calls, f"{data.distance(x):.4f}")
    data = trimodal(process("median", "hybrid"))
    x = single_steps(data, num_samples)
    calls = int(data.process.axis(FLOOR).last)
    row("median", "hybrid", "ancestral, single steps", calls, f"{data.distance(x):.4f}")


def fifty_table(compared: list[tuple[str, str]], num_samples: int) -> None:
    header("sampler", *(f"{model} {noise}" for model, noise in compared))
    for sampler in options("sampler"):
        cells = []
        for model, noise in compared:
            data = trimodal(process(model, noise))
            cells.append(f"{data.distance(sampled(data, sampler, 50, num_samples)):.4f}")
        row(sampler, *cells)


def grids_table(num_samples: int) -> None:
    """Print, along a rectified flow, how much of the std of data N(0, 1/4) a first-order walk keeps
    (exact), and distances to the mixture.
    """
    counts = (5, 10, 20, 50)
    header("grid", *(f"std kept, {n} calls" for n in counts), *(f"ddim, {n}" for n in counts),
           *(f"dpmpp_2m, {n}" for n in counts))  # fmt: skip
    data = trimodal(process("flow", "flow"))
    for grid in options("sampler/grid"):
        cells, words = [], ("sampler/thresholding=none", f"sampler/grid={grid}")
        for n in counts:
            times = build("sampler/grid", grid).times(data.process.axis(FLOOR), n)
            cells.append(kept(data.process, times, VARIANCE**0.5))
        for sampler in ("ddim", "dpmpp_2m"):
            for n in counts:
                walker = build("sampler", sampler, *words, num_evaluations=n)
                generator = torch.Generator().manual_seed(0)
                x = walker.sample(data, (num_samples,), generator=generator)
                cells.append(f"{data.distance(x):.4f}")
        row(grid, *cells)


def components_table() -> None:
    """Print how much DDIM keeps in 20 calls of components of clips of 16x64x64 in colour; exact."""
    shape = (1, 3, 16, 64, 64)
    straight = process("flow", "flow")
    axis = straight.axis(log_snr_floor(shape))
    header("grid", "brightness common to all values (0.5 sqrt(d))", "std 0.5", "std 0.05")
    for name, values in [
        *((name, {}) for name in options("sampler/grid")),
        ("tangent", {"std": 50}),
    ]:
        times = build("sampler/grid", name, **values).times(axis, 20)
        stds = (0.5 * prod(shape) ** 0.5, 0.5, 0.05)
        row(f"{name} {values or ''}", *(kept(straight, times, std) for std in stds))


def kept(chain: GaussianProcess, times: Tensor, std: float) -> str:
    """Return the share of the std of Gaussian data that a walk of first order keeps."""
    angle = (-chain.log_snr(times) / 2).exp().div(std).atan()
    return f"{100 * float(angle.diff().cos().prod() * angle[0].sin()):.1f} %"


def width(ring: Ring, x: Tensor) -> float:
    """Return the std of samples (N, 2) across the Gaussian nearest to each, in their WIDTH."""
    along = ring.along_axes(x)
    nearest = along.square().sum(-1).argmin(1)
    across = along[torch.arange(len(x)), nearest, 0]
    stds = [across[nearest == k].std() for k in range(len(ring.means))]
    return float(torch.stack(stds).mean()) / WIDTH


def sliced_distance(x: Tensor, y: Tensor) -> float:
    """Return the Wasserstein-1 distance of two sets (N, 2), averaged over 64 directions."""
    angle = torch.arange(64).double() * pi / 64
    directions = torch.stack([angle.cos(), angle.sin()])
    sorted_x, sorted_y = ((points.double() @ directions).sort(0).values for points in (x, y))
    return float((sorted_x - sorted_y).abs().mean())


def defaults_table(num_samples: int) -> None:
    """Print distance and width of samplers and grids on the ring, at 10, 25 and 50 calls."""
    chains = {f"{m} {n}": process(m, n) for m, n in (("standard", "cosine"), ("median", "linear"))}
    header("sampler", "grid", *(f"{name}, {n} calls" for name in chains for n in (10, 25, 50)))
    reference = Ring(process("standard", "cosine")).draw(
        num_samples, torch.Generator().manual_seed(1)
    )
    for sampler in ("ancestral", "ddim", "sde", "heun", "dpmpp_2m", "dpmpp_2m_sde", "unipc"):
        for grid in ("uniform_t", "uniform_log_snr", "karras"):
            cells = []
            for chain in chains.values():
                data, words = Ring(chain), ("sampler/thresholding=none", f"sampler/grid={grid}")
                for n in (10, 25, 50):
                    generator = torch.Generator().manual_seed(2 + n)
                    walker = build("sampler", sampler, *words, num_evaluations=n)
                    x = walker.sample(data, (num_samples, 2), generator=generator)
                    cells.append(f"{sliced_distance(x, reference):.4f}, {width(data, x):.2f}")
            row(sampler, grid, *cells)


def bound_table() -> None:
    """Exact: data N(0, 1/4), the exact denoiser, expectations in closed form."""
    header("process", "T", "bound", "terms", "bits/value above the truth")
    median, even = process("median", "linear"), torch.arange(1000, -1, -2)
    single = torch.arange(1000, -1, -1)
    row("median", 1000, "single steps", 1000, f"{pairwise_gap(median, single):.3f}")
    row("median", 1000, "stride 2", 500, f"{pairwise_gap(median, even):.3f}")
    row("median", 1000, "pair", 999, f"{pair_gap(median):.3f}")
    for num_steps in (1000, 4000):
        standard = process("standard", "linear", num_steps)
        gap = pairwise_gap(standard, torch.arange(num_steps, -1, -1))
        row("standard", num_steps, "single steps", num_steps, f"{gap:.3f}")


VARIANCE = 0.25
TRUTH = log(2 * pi * e * VARIANCE) / 2


def pairwise_gap(chain: GaussianProcess, times: Tensor) -> float:
    total = float(chain.log_snr(times[0]).exp()) / 2 * VARIANCE
    for t, s in pairwise(times[:-1]):
        step = chain.conditional(s, t)
        total += float(step.of_x_0.square() / step.variance) / 2 * error(chain.log_snr(t).exp())
    return (total + decoder(chain.log_snr(times[-2]).exp()) - TRUTH) / log(2)


def pair_gap(chain: GaussianProcess) -> float:
    snr = state_law(chain, torch.arange(chain.num_steps, 1, -1)).snr()
    total = float(snr[0]) / 2 * VARIANCE
    total += float((snr.diff() / 2 * VARIANCE / (1 + snr[:-1] * VARIANCE)).sum())
    return (total + decoder(snr[-1]) - TRUTH) / log(2)


def error(snr: Tensor) -> float:
    """Mean squared error of the best estimate of x_0."""
    return float(VARIANCE / (1 + snr * VARIANCE))


def decoder(snr: Tensor) -> float:
    return log(2 * pi / float(snr)) / 2 + error(snr) * float(snr) / 2


def save_mixture(path: Path, num_samples: int) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    data = trimodal(process("standard", "linear"))
    for number, sampler in enumerate(options("sampler")):
        distances = [data.distance(sampled(data, sampler, n, num_samples)) for n in EVALUATIONS]
        style = ("-", "--", ":")[number % 3]
        left.loglog(EVALUATIONS, distances, style, marker=".", label=sampler)
    exact = data.distance(data.draw(num_samples, torch.Generator().manual_seed(1)))
    left.axhline(exact, color="0.6", linewidth=0.8, linestyle="--")
    left.set(title="standard x linear", xlabel="network calls", ylabel="Wasserstein-1 to the data")
    left.legend(fontsize="small", ncols=2)
    data = trimodal(process("median", "hybrid"))
    curves = {
        "data": data.draw(num_samples, torch.Generator().manual_seed(1)),
        "ancestral, single steps": single_steps(data, num_samples),
        "midpoint": sampled(data, "midpoint", int(data.process.axis(FLOOR).num_steps), num_samples),
        "pair": sampled(data, "pair", int(data.process.state_axis(FLOOR).num_steps), num_samples),
    }
    bins = torch.linspace(-1.1, 1.1, 221)
    for name, x in curves.items():
        density = torch.histogram(x.float().cpu(), bins, density=True).hist
        fill = {"color": "0.8", "fill": True} if name == "data" else {}
        right.stairs(density, bins, label=name, **fill)
    right.set(title="median x hybrid, all usable steps", xlabel="x_0", ylabel="density")
    right.legend()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--num-samples", type=int, default=200_000)
    arguments = parser.parse_args()
    panels = {
        model: {noise: process(model, noise) for noise in options("noise")}
        for model in ("standard", "median")
    }
    save_log_snr(panels, FLOOR, arguments.folder / "snr.png")
    validator_table()
    bound_table()
    fifty_table(COMPARED, arguments.num_samples)
    fifty_table(CONTINUOUS, arguments.num_samples)
    grids_table(arguments.num_samples)
    components_table()
    defaults_table(arguments.num_samples)
    all_steps_table(arguments.num_samples)
    save_mixture(arguments.folder / "mixture.png", arguments.num_samples // 4)


if __name__ == "__main__":
    main()

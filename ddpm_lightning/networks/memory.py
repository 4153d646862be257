"""How much memory training takes, and which batch is fast, measured before its first step.

Weights, gradients, the optimizer's moments and averages of the weights are counted. A training step
is run with one clip and with two; activations grow linearly with the number of clips:

    peak(n) = peak(1) + (n - 1) (peak(2) - peak(1)).

Steps with 1, 2, 4, .. clips are timed until twice as many are hardly more a second.
"""

import copy
import math
import sys
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, UntypedStorage, nn
from torch.optim import Adam
from torch.utils._python_dispatch import TorchDispatchMode

GIB = 2**30
RESERVE = 0.9  # share of a device's memory that a plan may take
PAYS = 1.1  # times as many clips a second, for which a batch is doubled
TIMED_SECONDS = 0.5  # for a batch size, or four steps


class MemoryPlan(NamedTuple):
    """The bytes that training takes at the peak of a step.

    fixed: those of weights, gradients, the optimizer's moments and averages.
    one, two: those of activations and temporary results, with one clip and with two.
    """

    fixed: int
    one: int
    two: int

    def total(self, batch_size: int) -> int:
        return self.fixed + self.one + (batch_size - 1) * (self.two - self.one)


def largest_batch(plan: MemoryPlan, available: int, most: int) -> int:
    """Return the first of most, most / 2, most / 4, .., 1 that fits, 0 where not even one does.

    Args:
        available: bytes of the device, of which RESERVE may be taken.
    """
    batch_size = most
    while batch_size and plan.total(batch_size) > RESERVE * available:
        batch_size //= 2
    return batch_size


def measure(
    network: nn.Module,
    clip_shape: Sequence[int],
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    averages: int = 1,
    available: int = sys.maxsize,
    conditions: Mapping[str, Tensor] | None = None,
) -> MemoryPlan:
    """Plan training with AdamW by a step of one clip and one of two, on a copy of the network.

    Gradients are there throughout, as they are where batches accumulate. On a CUDA device the
    allocator's peak counts, on a CPU the peak of what operators return, which depends on neither
    the machine nor its load; what a kernel uses and frees inside is not in it.

    Args:
        clip_shape: (C, F, H, W).
        dtype: that autocast computes in; float32 is without autocast.
        averages: number of averages of the weights that are kept.
        available: bytes of the device. A step that cannot fit is not finished: one or two is then
            the smallest number that does not fit.
        conditions: what the network takes beside log-SNR, by name, for one clip: vectors
            (vector_width,), tokens (L, token_width).

    Raises:
        ValueError: if the network refuses clips of this shape.
    """
    weights = sum(p.nbytes for p in network.parameters())
    gradients = sum(p.nbytes for p in network.parameters() if p.requires_grad)
    fixed = (1 + averages) * weights + 3 * gradients  # and two moments of each
    limit = math.floor(RESERVE * available) - fixed
    one = two = limit + 1
    with _trial(device):
        step = training_step(network, clip_shape, device, dtype, conditions or {})
        peak = cuda_peak(device) if device.type == "cuda" else partial(cpu_peak, limit=limit)
        one = peak(partial(step, 1))
        two = peak(partial(step, 2))
        del step
    return MemoryPlan(fixed, one, two)


def fastest_batch(
    network: nn.Module,
    clip_shape: Sequence[int],
    device: torch.device,
    dtype: torch.dtype,
    most: int,
    conditions: Mapping[str, Tensor] | None = None,
) -> int:
    """Return the batch size that pays, by eager steps with Adam on a copy of the network.

    Args:
        most: a power of 2.   Others: see `measure`.
    """
    with _trial(device):
        step = training_step(network, clip_shape, device, dtype, conditions or {}, updates=True)
        most = paying_batch(partial(step_seconds, step, device), most)
        del step
    return most


def paying_batch(seconds: Callable[[int], float], most: int) -> int:
    """Return the first of 1, 2, 4, .. most clips that it does not pay to double, or to try.

    Args:
        seconds: of a step with a number of clips; torch.OutOfMemoryError where they do not fit.
    """
    batch_size = 1
    with suppress(torch.OutOfMemoryError):
        before = seconds(1)
        while batch_size < most:
            after = seconds(2 * batch_size)
            if 2 * before < PAYS * after:
                break
            before, batch_size = after, 2 * batch_size
    return batch_size


def step_seconds(step: Callable[[int], None], device: torch.device, num_clips: int) -> float:
    """Return the seconds of the shortest step, after one that warms up."""
    step(num_clips)
    times: list[float] = []
    while len(times) < 4 and sum(times) < TIMED_SECONDS:
        start = time.perf_counter()
        step(num_clips)
        if device.type != "cpu":
            torch.accelerator.synchronize()
        times.append(time.perf_counter() - start)
    return min(times)


@contextmanager
def _trial(device: torch.device) -> Iterator[None]:
    """Keep random numbers, and a device's memory, as they are; end where that is not enough."""
    on_cuda = device.type == "cuda"
    with torch.random.fork_rng([device] if on_cuda else []), suppress(torch.OutOfMemoryError):
        yield
    if on_cuda:
        torch.cuda.empty_cache()


def training_step(
    network: nn.Module,
    clip_shape: Sequence[int],
    device: torch.device,
    dtype: torch.dtype,
    conditions: Mapping[str, Tensor],
    updates: bool = False,
) -> Callable[[int], None]:
    """Return a function that adds to the gradients of a copy, for a number of clips of zeros.

    Args:
        updates: whether Adam, as costly as AdamW, changes the copy's weights then.
    """
    network = copy.deepcopy(network).to(device).train()
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    optimizer = Adam(network.parameters(), fused=True) if updates else None

    def step(num_clips: int) -> None:
        x = torch.zeros(num_clips, *clip_shape, device=device)
        log_snr = torch.zeros(num_clips, device=device)
        more = {k: v.to(device).expand(num_clips, *v.shape) for k, v in conditions.items()}
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            output = network(x, log_snr, **more)
        output.float().square().mean().backward()
        if optimizer is not None:
            optimizer.step()

    return step


def cuda_peak(device: torch.device) -> Callable[[Callable[[], None]], int]:
    """Return a function that measures the peak of a step above what is allocated now.

    What the first step leaves behind, such as workspaces of libraries, is counted in each.
    """
    before = torch.cuda.memory_allocated(device)

    def peak(step: Callable[[], None]) -> int:
        torch.cuda.reset_peak_memory_stats(device)
        step()
        return int(torch.cuda.max_memory_allocated(device)) - before

    return peak


def cpu_peak(step: Callable[[], None], limit: int) -> int:
    """Return the peak in bytes of tensors that a step makes.

    Raises:
        torch.OutOfMemoryError: once it is above the limit.
    """
    live = LiveBytes(limit)

    def run() -> None:
        with live:
            step()

    try:
        # A gradient that stops midway leaves nodes to its thread, which fault once Python ends.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(run).result()
    except RuntimeError as error:  # the CPU's allocator raises nothing more specific
        if "can't allocate memory" in str(error):
            raise torch.OutOfMemoryError(str(error)) from error
        raise
    return live.peak - live.live  # tables that layers keep are made once


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of storages that operators have made and that are still referenced."""

    def __init__(self, limit: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.limit, self.live, self.peak = limit, 0, 0
        self._storages: dict[int, weakref.ref[UntypedStorage]] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch imports its compiler here, which takes seconds

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if not _is_view(func):
            for value in output if isinstance(output, tuple | list) else (output,):
                if isinstance(value, Tensor):
                    self._count(value.untyped_storage())
            if self.live > self.limit:
                raise torch.OutOfMemoryError(f"{self.live} bytes are live, {self.limit} fit")
        return output

    def _count(self, storage: UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._storages:  # some operators return views without declaring it
            self._storages[key] = weakref.ref(storage, partial(self._free, key, size))
            self.live += size
            self.peak = max(self.peak, self.live)

    def _free(self, key: int, size: int, _: Any) -> None:
        del self._storages[key]
        self.live -= size


@cache
def _is_view(func: Any) -> bool:
    """Return whether all that an operator returns are tensors of its arguments."""
    returns = func._schema.returns if hasattr(func, "_schema") else []
    return bool(returns) and all(value.alias_info is not None for value in returns)

"""How much memory training a network takes, planned before its first step.

At the peak, the beginning of the backward pass, there are: weights, the optimizer's two moments and
an average of the weights, float32; everything saved for the gradient, found by running the network
on tensors without values; and the tensors that are being worked on.
"""

import copy
import ctypes
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ddpm_lightning.networks.blocks import planned_for
from ddpm_lightning.networks.stage import Stage

GIB = 2**30
RESERVE = 0.9  # share of a device's memory that a plan may take
_FEW, _FEW_POSITIONS = 8, 2**16  # clips, and their positions, to plan with
LARGEST_BATCH = 64  # that is proposed
WORKING = 8  # of the largest outputs, in float32, that the backward pass holds, by trial
_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # as mallopt numbers them
LIBRARIES = 56 * 2**20  # bytes of kernels and their buffers, by trial


class MemoryPlan(NamedTuple):
    """Bytes at the peak of a training step.

    by_level: of activations, the middle with the last level; then of those at no level.
    """

    weights: int
    optimizer: int
    averages: int
    by_level: tuple[int, ...]
    working: int

    @property
    def activations(self) -> int:
        return sum(self.by_level)

    @property
    def fixed(self) -> int:
        """Whatever the clips are."""
        return self.weights + self.optimizer + self.averages

    @property
    def total(self) -> int:
        return self.fixed + self.activations + self.working

    def __str__(self) -> str:
        *levels, rest = (f"{size / GIB:.2f}" for size in self.by_level)
        levels_first = f" = {' + '.join(levels)} by level, {rest} elsewhere" if levels else ""
        return (
            f"{self.total / GIB:.2f} GiB (weights {self.weights / GIB:.2f}, "
            f"optimizer {self.optimizer / GIB:.2f}, averages {self.averages / GIB:.2f}, "
            f"activations {self.activations / GIB:.2f}{levels_first}, "
            f"working {self.working / GIB:.2f})"
        )


class Proposal(NamedTuple):
    """What fits a device: of `batch_size` clips at a time, `accumulate` make an optimizer step."""

    batch_size: int
    accumulate: int
    checkpointing: bool
    plan: MemoryPlan


class _Saved:
    """Storages that are kept for the gradient while a network runs, in all and by stage."""

    def __init__(self, network: nn.Module) -> None:
        self.sizes: dict[int, int] = {}
        self.alive: list[Tensor] = []  # so that no two storages share an identity
        self.largest = 0  # bytes of a layer's output
        self.stages: list[tuple[set[int], set[int]]] = []  # what goes in, what is saved inside
        self.levels: dict[int, int] = {}  # of a storage, the one that kept it first
        self._open: list[set[int]] = []
        self._level: int | None = None
        self._own = {_key(p) for p in [*network.parameters(), *network.buffers()]}

    def keep(self, tensor: Tensor) -> Tensor:
        if _key(tensor) not in self._own:
            self._place(self.note(tensor))
            for inside in self._open:
                inside.add(_key(tensor))
        return tensor

    def note(self, tensor: Tensor) -> int:
        self.alive.append(tensor)
        self.sizes[_key(tensor)] = tensor.untyped_storage().nbytes()
        return _key(tensor)

    def compare(self, layer: nn.Module, arguments: object, output: Tensor) -> None:
        self.largest = max(self.largest, output.numel() * output.element_size())

    def _place(self, key: int) -> None:
        if self._level is not None:
            self.levels.setdefault(key, self._level)

    def go_to(self, level: int | None, *_: object) -> None:
        self._level = level

    def enter(self, stage: nn.Module, arguments: tuple[object, ...]) -> None:
        self._open.append(set())
        given = {self.note(t) for t in arguments if isinstance(t, Tensor)}
        for key in given:
            self._place(key)
        self.stages.append((given, self._open[-1]))

    def leave(self, *_: object) -> None:
        self._open.pop()

    def bytes(self, keys: set[int]) -> int:
        return sum(self.sizes[key] for key in keys)


def keep_freed() -> None:
    """Tells the C library to keep what tensors free for the next ones, as GNU's can.

    Else it goes back to the system, from which it comes again page by page.
    """
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL("libc.so.6")
        # Older ones take no more than 32 MiB.
        if library.mallopt(_MMAP_THRESHOLD, 2**30) or library.mallopt(_MMAP_THRESHOLD, 2**25):
            library.mallopt(_TRIM_THRESHOLD, 2**31 - 1)


def _key(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


class _Fused(TorchFunctionMode):
    """Attention as the fused kernels do it, which save no weights of attention."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is F.scaled_dot_product_attention:
            return _FusedAttention.apply(*args[:3])
        return func(*args, **(kwargs or {}))


class _FusedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        output = torch.empty_like(q)
        ctx.save_for_backward(q, k, v, output)
        return output


def plan(
    network: nn.Module,
    shape: Sequence[int],
    device_type: str,
    dtype: torch.dtype = torch.float32,
    averages: int = 1,
    conditions: Mapping[str, Sequence[int]] | None = None,
) -> MemoryPlan:
    """For a training step of AdamW on clips (B, C, F, H, W).

    Args:
        device_type: cpu or cuda, which save different things.
        dtype: that activations are computed in.
        averages: of the weights, that are kept.
        conditions: shape for one clip of what the network is told beside log-SNR, by its name:
            vectors (vector_width,), tokens (L, token_width).
    """
    blank = copy.deepcopy(network).to("meta", dtype).train()
    saved = _Saved(blank)
    for layer in blank.modules():
        layer.register_forward_hook(saved.compare)
    stages = [module for module in blank.modules() if isinstance(module, Stage)]
    for stage in stages:
        stage.register_forward_pre_hook(partial(saved.go_to, stage.level))
        stage.register_forward_hook(partial(saved.go_to, None))
        if not stage.checkpointing:
            continue
        stage.checkpointing = False
        stage.register_forward_pre_hook(saved.enter)
        stage.register_forward_hook(saved.leave)
    x = torch.empty(tuple(shape), device="meta", dtype=dtype)
    level = torch.empty(shape[0], device="meta", dtype=dtype)
    told = {
        name: torch.empty(shape[0], *each, device="meta", dtype=dtype)
        for name, each in (conditions or {}).items()
    }
    with (
        planned_for(device_type),
        _Fused(),
        torch.autograd.graph.saved_tensors_hooks(saved.keep, lambda tensor: tensor),
    ):
        output = blank(x, level, **told)
    again = [inside for _, inside in saved.stages]  # made when the gradient needs them
    given = {key for outside, _ in saved.stages for key in outside}
    kept = (saved.sizes.keys() - {key for inside in again for key in inside}) | given
    weights = 4 * sum(p.numel() for p in network.parameters())
    casts = 0 if dtype == torch.float32 or device_type == "cpu" else weights // 2
    largest = saved.largest * 4 // dtype.itemsize
    working = WORKING * largest + 2 * output.numel() * 4 + LIBRARIES
    working += max((saved.bytes(inside - given) for inside in again), default=0)
    by_level = [0] * (1 + max((stage.level for stage in stages), default=-1)) + [casts]
    for key in kept:
        by_level[saved.levels.get(key, -1)] += saved.sizes[key]
    return MemoryPlan(weights, 2 * weights, averages * weights, tuple(by_level), working)


def planner(
    network: nn.Module,
    clip: Sequence[int],
    device_type: str,
    dtype: torch.dtype = torch.float32,
    averages: int = 1,
    conditions: Mapping[str, Sequence[int]] | None = None,
) -> Callable[[int], MemoryPlan]:
    """Batch size -> plan; of a large one by what two small ones take: planning takes time, too.

    Args:
        clip: (C, F, H, W).
    """
    few = max(1, min(_FEW, _FEW_POSITIONS // math.prod(clip[1:])))

    @cache
    def small(batch_size: int) -> MemoryPlan:
        return plan(network, (batch_size, *clip), device_type, dtype, averages, conditions)

    def planned(batch_size: int) -> MemoryPlan:
        if batch_size <= few:
            return small(batch_size)
        slope = (batch_size - few) / few
        one, two = small(few), small(2 * few)
        by_level = zip(one.by_level, two.by_level, strict=True)
        return one._replace(
            by_level=tuple(round(a + (b - a) * slope) for a, b in by_level),
            working=round(one.working + (two.working - one.working) * slope),
        )

    return planned


def propose(
    network: nn.Module,
    shape: Sequence[int],
    device_type: str,
    available: int,
    dtype: torch.dtype = torch.float32,
    averages: int = 1,
    conditions: Mapping[str, Sequence[int]] | None = None,
) -> Proposal:
    """The largest batch up to shape[0] that fits: first whole, then in halves that accumulate, at
    last with checkpointing at every level. ValueError where not even one clip fits.

    Args:
        shape: (B, C, F, H, W) of the batch that an optimizer step is meant to see.
        available: bytes of the device.
    """
    blank = copy.deepcopy(network).to("meta")  # once: the weights of a large one take long
    for checkpointing in (False, True):
        for module in blank.modules():
            if checkpointing and isinstance(module, Stage):
                module.checkpointing = True
        planned = planner(blank, shape[1:], device_type, dtype, averages, conditions)
        batch_size = shape[0]
        while batch_size:
            needed = planned(batch_size)
            if needed.total <= RESERVE * available:
                return Proposal(batch_size, -(-shape[0] // batch_size), checkpointing, needed)
            batch_size //= 2
    room = RESERVE * available

    def fits(*clip: int) -> bool:
        one = (1, shape[1], *clip)
        return plan(blank, one, device_type, dtype, averages, conditions).total <= room

    smaller = _smaller_clips(shape[2:], needed, room, fits)
    remedy = f"with it {' or '.join(smaller)} fits" if smaller else "choose a smaller network="
    raise ValueError(
        f"one clip of {tuple(shape[2:])} needs {needed}, even with checkpointing, and "
        f"{available / GIB:.1f} GiB are there; {remedy}"
    )


def _smaller_clips(
    clip: Sequence[int], needed: MemoryPlan, room: float, fits: Callable[..., bool]
) -> list[str]:
    """Words for fewer frames and for a smaller size that fit: what is saved grows with both.

    Args:
        clip: (F, H, W).   fits: whether a clip of (F, H, W) does.
    """
    frames, height, width = clip
    fixed = needed.fixed + LIBRARIES
    share = (room - fixed) / (needed.total - fixed)
    if share <= 0:
        return []
    words = []
    if (fewer := int(share * frames)) and fits(fewer, height, width):
        words.append(f"data.num_frames={fewer}")
    halvings = math.ceil(math.log2(1 / share) / 2)
    height, width = height >> halvings, width >> halvings
    with suppress(ValueError):  # off the network's stride
        if height and width and fits(frames, height, width):
            words.append(f"data.size=[{height},{width}]")
    return words

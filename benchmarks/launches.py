"""Operators that a training step launches on a GPU, counted without one.

    python -m benchmarks.launches [small base ..]      # half a minute for each, on a CPU

A step (loss, gradients, norm and clipping, AdamW, one average) of a preset on 16x64x64, batch 8, in
bfloat16, is run on tensors without values. Counted is what computes or copies on a GPU: no views,
no allocation, no float64, which stays on the CPU. An operator on a list counts once for every 36 of
its members, as many as fit one launch of the fused AdamW. A convolution with its bias, and its
gradient, count once and launch two or three times. Left out are the noise, one launch for each
clip, and the clips' way to the device.
"""

import argparse
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.gpu import preset
from ddpm_lightning import denoiser
from ddpm_lightning.networks import blocks, kernels
from ddpm_lightning.networks.kernels import eager
from ddpm_lightning.noise.cosine import CosineSchedule
from ddpm_lightning.objectives.velocity import VelocityObjective
from ddpm_lightning.processes.standard import StandardProcess

PER_LAUNCH = 36  # members of a list
ALLOCATE = (
    "_unsafe_view",
    "empty",
    "empty_like",
    "empty_strided",
    "new_empty",
    "new_empty_strided",
    "detach",
)


class Attended(NamedTuple):
    """The queries, keys and values of a call of attention, and its mask."""

    qkv: tuple[Tensor, Tensor, Tensor]
    mask: Tensor | None

    @property
    def is_fast(self) -> bool:
        """Return whether torch's fused kernels take the call: see can_use_flash_attention."""
        return self.mask is None and all(
            x.dtype in (torch.bfloat16, torch.float16)
            and x.dim() == 4
            and x.shape[-1] % 8 == 0
            and x.shape[-1] <= 256
            and x.stride(-1) == 1
            and max(x.shape[:2]) < 2**16  # of a grid's second and third side
            for x in self.qkv
        )


class Launches(TorchDispatchMode):
    """Counts operators by name, and records the calls of attention.

    What torch would do with a call is known to it on a GPU alone: its rules are in Attended.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: Counter[str] = Counter()
        self.float32_products = 0
        self.calls: list[Attended] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        space, name = func._schema.name.split("::")
        tensors = [x for x in tree_leaves((output, args)) if isinstance(x, Tensor)]
        if (
            space == "prim"
            or _is_view(func)
            or name in ALLOCATE
            or not tensors
            or tensors[0].dtype == torch.float64
        ):
            return output
        members = max((len(a) for a in args if isinstance(a, list | tuple)), default=1)
        is_list = name.startswith(("_foreach", "_fused_adam"))
        self.counts[name] += -(-members // PER_LAUNCH) if is_list else 1
        is_product = name in ("mm", "bmm", "addmm", "baddbmm", "convolution", "mv", "dot")
        self.float32_products += is_product and tensors[0].dtype == torch.float32
        return output

    def clear(self) -> None:
        self.counts.clear()
        self.float32_products = 0
        self.calls.clear()

    @property
    def total(self) -> int:
        return self.counts.total()

    @contextmanager
    def counted(self) -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(patch.object(kernels, "FEW", 0))
            stack.enter_context(patch.object(denoiser, "moved", _moved))
            stack.enter_context(_Kernels(self))
            yield stack.enter_context(self)


class _Norm(torch.autograd.Function):
    """One operator, and one for its gradient, as RMS norm has on a GPU; layer norm's stand in."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None) -> Tensor:
        output, mean, reciprocal = torch.native_layer_norm(x, x.shape[-1:], weight, None, 1e-6)
        ctx.save_for_backward(x, weight, mean, reciprocal)
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None]:
        x, weight, mean, reciprocal = ctx.saved_tensors
        of_x, of_weight, _ = torch.ops.aten.native_layer_norm_backward(
            gradient,
            x,
            x.shape[-1:],
            mean,
            reciprocal,
            weight,
            None,
            [True, weight is not None, False],
        )
        return of_x, of_weight


class _Kernels(TorchFunctionMode):
    """Takes the kernels that a GPU has in the place of a CPU's."""

    def __init__(self, launches: Launches) -> None:
        super().__init__()
        self.launches = launches

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        casts = torch.is_autocast_enabled("cpu")
        if func is F.rms_norm:
            x, weight = args[0], kwargs.get("weight")
            return _Norm.apply(x.float() if casts else x, weight)
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        q, k, v = (x.to(torch.bfloat16) if casts else x for x in args[:3])
        call = Attended((q, k, v), kwargs.get("attn_mask"))
        self.launches.calls.append(call)
        if call.is_fast:
            return torch.ops.aten._scaled_dot_product_flash_attention(q, k, v)[0]
        return torch.ops.aten._scaled_dot_product_attention_math(q, k, v)[0]


def _moved(x: Tensor, *coefficients: Tensor) -> tuple[Tensor, ...]:
    """Return what `moved` does: one copy, from the CPU, which turns float64 into x's dtype."""
    return torch.stack(coefficients).to(x.dtype).unbind()


@cache
def _is_view(func: Any) -> bool:
    returns = func._schema.returns
    return bool(returns) and all(r.alias_info and not r.alias_info.is_write for r in returns)


def training_step(name: str, batch: int = 8, **more: Any) -> Launches:
    """Return what a training step of a preset launches, once its optimizer has its moments."""
    launches = Launches()
    for keep in (eager.turns, blocks.halves_first):
        keep.cache_clear()  # of tensors with values
    process = StandardProcess(CosineSchedule(1000, 0.008, 0.9999))
    level = process.level(torch.linspace(1, 999, batch).long())
    with torch.device("meta"):
        network = preset(name, **more)
        model = denoiser.Denoiser(network, process, VelocityObjective())
    with FakeTensorMode(allow_non_fake_inputs=True), launches.counted():
        without_values(model)
        parameters = list(network.parameters())
        weights = [p.data for p in parameters]
        average, first, second = ([torch.empty_like(p) for p in weights] for _ in range(3))
        steps = [torch.empty(()) for _ in weights]
        clips, noise = torch.empty(batch, 16, 64, 64, 3).byte(), torch.empty(batch, 3, 16, 64, 64)
        for _ in range(2):  # what the first one keeps, the second one has
            launches.clear()
            network.zero_grad()
            x_0 = model.statistics.standardise(clips)
            with torch.autocast("cpu", torch.bfloat16):
                loss = model.loss(x_0, level, noise).mean()
            loss.backward()
        gradients = [p.grad for p in parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients, foreach=True)
        torch.nn.utils.clip_grads_with_norm_(parameters, 1.0, norm, foreach=True)
        torch._foreach_add_(steps, 1)
        torch._fused_adamw_(
            weights, gradients, first, second, [], steps, lr=1e-3, beta1=0.9, beta2=0.99,
            weight_decay=0.01, eps=1e-8, amsgrad=False, maximize=False,
        )  # fmt: skip
        torch._foreach_lerp_(average, weights, 0.01)
    for keep in (eager.turns, blocks.halves_first):
        keep.cache_clear()
    return launches


def without_values(module: nn.Module) -> None:
    """Put tensors of the mode in the place of a module's, which Module.to does not do with them."""
    for each in module.modules():
        for name, p in each._parameters.items():
            if p is not None:
                each._parameters[name] = nn.Parameter(torch.empty_strided(p.shape, p.stride()))
        for name, b in each._buffers.items():
            if b is not None:
                each._buffers[name] = torch.empty(b.shape, dtype=b.dtype)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=["small", "base"])
    for name in parser.parse_args().names:
        launches = training_step(name)
        fast = sum(call.is_fast for call in launches.calls)
        print(
            f"{name}: {launches.total} operators, {launches.float32_products} products in float32, "
            f"{fast} of {len(launches.calls)} calls of attention are fused"
        )
        print("  " + ", ".join(f"{n} {c}" for n, c in launches.counts.most_common(30)))


if __name__ == "__main__":
    main()

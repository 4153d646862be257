"""Half precision, eagerly: activations are in it throughout, weights are cast in one pass.

Autocast casts activations and weights where they are used, and gradients back, one by one. Under a
compiler, which fuses casts, it stays in charge.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


@contextmanager
def autocast_once(x: Tensor, modules: Callable[[], list[nn.Module]]) -> Iterator[None]:
    """Compute in the precision that autocast asks for on x's device: that of modules' weights."""
    device = x.device.type
    asks = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    if torch.compiler.is_compiling() or not asks:
        yield
        return
    dtype = torch.get_autocast_dtype(device)
    with torch.autocast(device, enabled=False), cast_weights(dtype, *modules()):
        yield


def weights_like(x: Tensor, module: nn.Module) -> AbstractContextManager[None]:
    """Return a context in which an eager module computes in x's precision."""
    return nullcontext() if torch.compiler.is_compiling() else cast_weights(x.dtype, module)


class Uncast:
    """Marks modules whose parameters are not cast: they compute their weights, in float32."""


@contextmanager
def cast_weights(dtype: torch.dtype, *modules: nn.Module) -> Iterator[None]:
    """Put casts in the place of the modules' parameters, unless they are in dtype already."""
    places = {
        (id(module), name): (module._parameters, name, parameter)
        for tree in modules
        for module in tree.modules()
        if not isinstance(module, Uncast)
        for name, parameter in module._parameters.items()
        if parameter is not None and parameter.dtype != dtype
    }.values()
    weights: Any = _Cast.apply(dtype, *(parameter for _, _, parameter in places)) if places else ()
    try:
        for (own, name, _), weight in zip(places, weights, strict=True):
            own[name] = weight
        yield
    finally:
        for own, name, parameter in places:
            own[name] = parameter


class _Cast(torch.autograd.Function):
    """Casts tensors in one pass, and their gradients back in another."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.dtype = weights[0].dtype
        return tuple(_cast(weights, dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        cast = iter(_cast([g for g in gradients if g is not None], ctx.dtype))
        return None, *(None if g is None else next(cast) for g in gradients)


def _cast(tensors: Any, dtype: torch.dtype) -> list[Tensor]:
    cast = [torch.empty_like(t, dtype=dtype) for t in tensors]
    if cast:
        torch._foreach_copy_(cast, tensors)
    return cast

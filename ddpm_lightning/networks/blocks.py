"""How layers compute on a CPU: in blocks that stay in the cache, with products by oneDNN.

A layer's widest intermediate results (queries, keys, weights of attention) are several times as
large as its input. Written out in full they cost more in page faults and cache misses than in
arithmetic, so they are made block by block, used and dropped, and made again for the gradient.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK_BYTES = 2**22  # of the widest intermediate result: a core's share of the cache, by trial
EPS = 1e-6  # added to a mean square before its root
LEAST = 2**22  # multiplications from which a float32 product pays as a convolution


_devices = {"cpu"}  # of tensors that layers work on by blocks


def by_blocks(x: Tensor) -> bool:
    """Whether a layer takes its blockwise form: on a CPU, unless a compiler does the fusing."""
    return not torch.compiler.is_compiling() and x.device.type in _devices


@contextmanager
def planned_for(device_type: str) -> Iterator[None]:
    """Within it tensors without values (device meta) take the form that the device's would."""
    if device_type == "cpu":
        _devices.add("meta")
    try:
        yield
    finally:
        _devices.discard("meta")


def spans(total: int, bytes_each: int, multiple: int = 1) -> Iterator[slice]:
    """Slices that cover range(total), evenly long, of about BLOCK_BYTES and a multiple each."""
    count = max(1, -(-total * bytes_each // BLOCK_BYTES))
    length = -(-total // count // multiple) * multiple
    for start in range(0, total, length):
        yield slice(start, min(start + length, total))


def normalised(x: Tensor) -> tuple[Tensor, Tensor]:
    """x / rms(x) over the last axis and 1 / rms(x), both float32 and new."""
    x = x.float()
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    reciprocal = norm.square_().div_(x.shape[-1]).add_(EPS).rsqrt_()
    return x * reciprocal, reciprocal


def normalised_gradient(gradient: Tensor, output: Tensor, reciprocal: Tensor) -> Tensor:
    """Of x -> x / rms(x), from the gradient at its output; float32, written over `gradient`."""
    along = (gradient * output).mean(-1, keepdim=True)
    return gradient.addcmul_(output, along, value=-1).mul_(reciprocal)


def product(x: Tensor, weight: Tensor) -> Tensor:
    """x (R, K) times the transpose of weight (O, K): (R, O).

    In float32 as a 1x1 convolution: oneDNN is twice as fast there as the matrix library on
    processors that the latter does not know; in bfloat16 both are oneDNN's.
    """
    if side := _side(x, len(weight)):
        output = F.conv2d(_images(x, side), weight[:, :, None, None])
        return output.permute(0, 2, 3, 1).flatten(0, 2)
    return F.linear(x, weight)


def weight_gradient(gradient: Tensor, x: Tensor) -> Tensor:
    """The transpose of gradient (R, O) times x (R, K): (O, K)."""
    if side := _side(x, gradient.shape[1]):
        shape = (gradient.shape[1], x.shape[1], 1, 1)
        _, of_weight, _ = torch.ops.aten.convolution_backward(
            _images(gradient, side),
            _images(x, side),
            x.new_empty(shape),
            None,
            [1, 1],
            [0, 0],
            [1, 1],
            False,
            [0, 0],
            1,
            [False, True, False],
        )
        square: Tensor = of_weight.view(shape[:2])
        return square
    return gradient.t() @ x


def _side(x: Tensor, out_width: int) -> int:
    """Of the images that rows of x are passed off as, 0 for none: torch takes oneDNN for 16 up."""
    if x.dtype != torch.float32 or x.numel() * out_width < LEAST:
        return 0
    sides = (side for side in (8, 4) if len(x) % side**2 == 0 and len(x) >= 16 * side**2)
    return next(sides, 0)


def _images(x: Tensor, side: int) -> Tensor:
    return x.view(-1, side, side, x.shape[-1]).permute(0, 3, 1, 2)

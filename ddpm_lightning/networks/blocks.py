"""How layers compute on a CPU: in blocks that stay in the cache, with products by oneDNN.

A layer's widest intermediate results (queries, keys, weights of attention) are several times as
large as its input, so they are computed block by block and used while they are in the cache. What
the gradient needs of each block is saved: to read it costs less than to recompute it.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK_BYTES = 2**22  # of the widest intermediate result: a core's share of the cache, by trial
EPS = 1e-6  # added to a mean square before its root
LEAST = 2**22  # multiplications from which a float32 product pays as a convolution
GRID = 2**16 - 1  # clips, or heads, that the fused kernels of attention take at a time
IMAGES = 16  # that its rows are viewed as: torch takes oneDNN for so many and more


def by_blocks(x: Tensor) -> bool:
    """Return whether a layer takes its blockwise form: on a CPU, unless a compiler fuses."""
    return not torch.compiler.is_compiling() and x.device.type == "cpu"


def fused_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return softmax(q k' / sqrt(d)) v for (N, heads, M, d), by torch's fused kernels.

    They take four axes, the last one dense; with more, torch writes the weights out.
    """
    longer = int(q.shape[1] > q.shape[0])
    if q.shape[longer] <= GRID:
        return F.scaled_dot_product_attention(q, k, v)
    parts = zip(*(t.split(GRID, longer) for t in (q, k, v)), strict=True)
    return torch.cat([F.scaled_dot_product_attention(*part) for part in parts], longer)


def spans(total: int, bytes_each: int, multiple: int = 1) -> Iterator[slice]:
    """Yield even slices that cover range(total), of about BLOCK_BYTES and a multiple each."""
    count = max(1, -(-total * bytes_each // BLOCK_BYTES))
    length = max(1, -(-total // count // multiple)) * multiple  # 1: nothing is no block
    for start in range(0, total, length):
        yield slice(start, min(start + length, total))


def normalised(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return x / rms(x) over the last axis and 1 / rms(x), both float32 and new."""
    x = x.float()
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    reciprocal = norm.square_().div_(x.shape[-1]).add_(EPS).rsqrt_()
    return x * reciprocal, reciprocal


def normalised_gradient(gradient: Tensor, output: Tensor, reciprocal: Tensor) -> Tensor:
    """Return the gradient of x -> x / rms(x) from that at its output, overwritten; float32."""
    along = (gradient * output).mean(-1, keepdim=True)
    return gradient.addcmul_(output, along, value=-1).mul_(reciprocal)


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x (R, K) times the transpose of weight (O, K), plus bias (O,): (R, O).

    In float32 as a 1x1 convolution: oneDNN is twice as fast there as the matrix library on
    processors that the latter does not know; in bfloat16 both are oneDNN's.
    """
    if _convolves(x, len(weight)):
        output = F.conv2d(_images(x), weight[:, :, None, None], bias)
        return output.permute(0, 2, 3, 1).flatten(0, 2)
    return F.linear(x, weight, bias)


def weight_gradient(gradient: Tensor, x: Tensor) -> Tensor:
    """Return the transpose of gradient (R, O) times x (R, K): (O, K)."""
    if gradient.shape[1] > x.shape[1]:  # the wider one second: up to twice as fast
        return weight_gradient(x, gradient).t()
    if _convolves(x, gradient.shape[1]):
        shape = (gradient.shape[1], x.shape[1], 1, 1)
        _, of_weight, _ = torch.ops.aten.convolution_backward(
            _images(gradient),
            _images(x),
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


def _convolves(x: Tensor, out_width: int) -> bool:
    return x.dtype == torch.float32 and len(x) % IMAGES == 0 and x.numel() * out_width >= LEAST


def _images(x: Tensor) -> Tensor:
    """Return rows (R, K) viewed as images (IMAGES, K, R / IMAGES, 1), channels last."""
    return x.view(IMAGES, -1, 1, x.shape[-1]).permute(0, 3, 1, 2)

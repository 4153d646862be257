"""The seam where float64 coefficients meet clips."""

import pytest
import torch

from ddpm_lightning.tensors import combine, expand


@pytest.mark.parametrize("shape", [(3,), (3, 2), (3, 1, 4, 2, 2)])
def test_each_sample_is_multiplied_by_its_own_coefficient(shape: tuple[int, ...]) -> None:
    coefficient = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    product = expand(coefficient, torch.ones(shape)) * torch.ones(shape)
    assert product.shape == shape
    assert torch.equal(
        product.reshape(3, -1), coefficient.float()[:, None].expand(3, product[0].numel())
    )


def test_each_frame_is_multiplied_by_its_own_coefficient() -> None:
    coefficient, x = torch.rand(2, 3, dtype=torch.float64), torch.rand(2, 1, 3, 4, 4).double()
    product = expand(coefficient, x) * x
    for clip in range(2):
        for frame in range(3):
            assert torch.equal(
                product[clip, :, frame], coefficient[clip, frame] * x[clip, :, frame]
            )


def test_scalar_multiplies_every_sample() -> None:
    x = torch.ones(2, 1, 3, 4, 4)
    assert torch.equal(expand(torch.tensor(2.0, dtype=torch.float64), x) * x, 2 * x)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "coefficient", [torch.ones((), dtype=torch.float64), torch.ones(2).double()]
)
def test_product_has_the_dtype_of_the_clip(coefficient: torch.Tensor, dtype: torch.dtype) -> None:
    x = torch.ones(2, 1, 3, 4, 4, dtype=dtype)
    assert (expand(coefficient, x) * x).dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(), (3,)])
def test_a_combination_is_the_sum_of_two_products(
    shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator
) -> None:
    """In float64 but for one rounding of each coefficient, product and sum; of order 1."""
    a, b = torch.rand(2, *shape, generator=generator, dtype=torch.float64)
    x, y = torch.randn(2, 3, 2, 4, generator=generator, dtype=torch.float64).to(dtype)
    combined = combine(a, x, b, y)
    assert combined.dtype == dtype
    assert combined.shape == x.shape
    a, b = (value.reshape(-1, 1, 1) if shape else value for value in (a, b))
    exact = a * x.double() + b * y.double()
    assert (combined.double() - exact).abs().max() <= 10 * torch.finfo(dtype).eps


def test_a_combination_takes_plain_numbers_too() -> None:
    x, y = torch.ones(2, 3), torch.full((2, 3), 2.0)
    assert torch.equal(combine(0.5, x, 0.25, y), torch.ones(2, 3))
    assert torch.equal(combine(0.5, x, torch.tensor(0.25).double(), y), torch.ones(2, 3))


def test_a_combination_leaves_its_parts_as_they_are() -> None:
    x, y = torch.ones(2, 3), torch.ones(2, 3)
    combine(torch.tensor(3.0).double(), x, torch.tensor(2.0).double(), y)
    combine(torch.tensor([3.0, 3.0]).double(), x, torch.tensor([2.0, 2.0]).double(), y)
    assert torch.equal(x, torch.ones(2, 3))
    assert torch.equal(y, torch.ones(2, 3))

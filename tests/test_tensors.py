"""The seam where float64 coefficients meet clips."""

import pytest
import torch

from ddpm_lightning.tensors import expand


@pytest.mark.parametrize("shape", [(3,), (3, 2), (3, 1, 4, 2, 2)])
def test_each_sample_is_multiplied_by_its_own_coefficient(shape: tuple[int, ...]) -> None:
    coefficient = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    product = expand(coefficient, torch.ones(shape)) * torch.ones(shape)
    assert product.shape == shape
    assert torch.equal(
        product.reshape(3, -1), coefficient.float()[:, None].expand(3, product[0].numel())
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

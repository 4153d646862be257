"""What all tests share."""

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests import forkserver

gc.disable()  # until all tests are collected: nothing that is imported becomes garbage
torch.set_num_threads(1)  # small tensors: more threads only get in each other's way

SHARED = Path(__file__).parents[2] / "shared"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that take longest begin, so that no process waits long for the others at the end."""
    items.sort(key=lambda item: not item.nodeid.startswith(("tests/run/", "tests/training/")))


def pytest_collection_finish() -> None:
    """No collection of garbage looks through modules and tests again, of which there are many."""
    gc.freeze()
    gc.enable()


def pytest_unconfigure() -> None:
    gc.unfreeze()  # or libraries would speak of leaks


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference material beside the repository; without it the test is skipped."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the reference material in {SHARED.name}/ beside the repository")
    return SHARED


@pytest.fixture(scope="session", autouse=True)
def forkserver_ends() -> Iterator[None]:
    yield
    forkserver.end()


@pytest.fixture
def generator() -> torch.Generator:
    """Seed 0."""
    return torch.Generator().manual_seed(0)

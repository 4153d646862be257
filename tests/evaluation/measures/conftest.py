"""The clips of a run: 160 moving digits, some of them held out."""

from collections.abc import Callable
from functools import partial

import pytest

from ddpm_lightning.data.clips.source import SourceClips
from ddpm_lightning.data.sources.moving_digits import MovingDigits
from ddpm_lightning.evaluation.subject import Reference

MakeReference = Callable[..., Reference]


@pytest.fixture(scope="session")
def make_reference(tmp_path_factory: pytest.TempPathFactory) -> MakeReference:
    """Returns a function of ClipData's options that opens the same clips."""
    folder = tmp_path_factory.mktemp("digits")

    def make(**options: object) -> Reference:
        data = SourceClips(
            partial(MovingDigits, num_clips=160),
            str(folder / "gifs"),
            size=16,
            channels=1,
            cache_path=str(folder / "cache"),
            **{"num_frames": 6, "val_fraction": 0.4, **options},  # type: ignore[arg-type]
        )
        data.load()
        return Reference(data)

    return make


@pytest.fixture(scope="session")
def reference(make_reference: MakeReference) -> Reference:
    """About 96 clips to train on and 64 held out."""
    return make_reference()

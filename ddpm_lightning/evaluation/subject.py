"""What is measured: a denoiser, its samples, and the clips of its run.

All of it is computed when a measure first asks for it, and once for all measures.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from ddpm_lightning.data.clips.base import ClipData
from ddpm_lightning.data.dataset import Annotation, Batch, ClipDataset
from ddpm_lightning.data.draws import permutation
from ddpm_lightning.data.order import Sample
from ddpm_lightning.denoiser import Denoiser
from ddpm_lightning.evaluation.features.base import Extractor, Features
from ddpm_lightning.guidance import CountedCalls
from ddpm_lightning.guidances.base import Guidance
from ddpm_lightning.guidances.none import NoGuidance
from ddpm_lightning.losses.base import Loss
from ddpm_lightning.samplers.base import Sampler
from ddpm_lightning.samplers.noise import per_sample_generators
from ddpm_lightning.samplers.walk import State
from ddpm_lightning.times.base import TimeSampling

NO_GUIDANCE = NoGuidance()
Split = Literal["train", "val"]
PROGRESS: dict[str, Any] = {"delay": 1, "leave": False, "disable": None}  # None: on a terminal only


class Training(NamedTuple):
    """What a denoiser is trained with: its loss and its times."""

    loss: Loss
    times: TimeSampling


class Reference:
    """The clips of a run: held out ones, and all that are trained on, each by its middle window.

    held_out, train: data sets without anything random.

    Args:
        data: loaded.
        batch_size: clips at a time.
    """

    def __init__(self, data: ClipData, batch_size: int | None = None) -> None:
        self.data = data
        self.batch_size = batch_size or data.batch_size
        train, windows = data.train_set, data.val_set.windows
        self.held_out = data.val_set
        self.train = ClipDataset(train.store, train.indices, replace(windows, random=False))
        self._features: dict[tuple[Extractor, Split, int | None], Features] = {}

    def shape(self, num_clips: int) -> tuple[int, ...]:
        """Return the shape of so many clips as a denoiser sees them, (num_clips, C, F, H, W)."""
        form = self.data.format
        return num_clips, form.channels, form.num_frames, form.height, form.width

    def batches(self, split: Split) -> Iterator[Batch]:
        """Yield all clips of a side in order, uint8."""
        dataset = self.held_out if split == "val" else self.train
        return self._batches(dataset, range(len(dataset)))

    def clips(self, split: Split) -> Tensor:
        """Return all clips of a side, uint8 (N, F, H, W, C)."""
        return torch.cat([batch.clip for batch in self.batches(split)])

    def _batches(self, dataset: ClipDataset, numbers: Sequence[int]) -> Iterator[Batch]:
        for first in range(0, len(numbers), self.batch_size):
            part = numbers[first : first + self.batch_size]
            yield dataset.__getitems__([Sample(i, i) for i in part])

    def features(
        self, extractor: Extractor, split: Split, most: int | None, device: torch.device | str
    ) -> Features:
        """Return the features of a side's clips, computed once.

        Args:
            most: clips, of which so many are drawn by a seed; None: all.
        Raises:
            ValueError: for clips that the extractor cannot take.
        """
        dataset = self.held_out if split == "val" else self.train
        key = extractor, split, most if most and most < len(dataset) else None
        if key not in self._features:
            chosen = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0))
            numbers = chosen[:most].sort().values.tolist()
            name = f"{extractor.name} features of {len(numbers)} {split} clips"
            self._features[key] = features_of(
                extractor, (b.clip for b in self._batches(dataset, numbers)), device, name
            )
        return self._features[key]

    def facts(self) -> dict[str, Any]:
        """Return what a card says of the clips."""
        form = self.data.format
        return {
            "num_held_out": len(self.held_out),
            "num_train": len(self.train),
            "held_out_sha256": self.held_out.digest(),
            "num_frames": form.num_frames,
            "fps": form.fps,
            "size": [form.height, form.width],
            "channels": form.channels,
            "resize_filter": "area",
        }


@dataclass(eq=False)
class Subject:
    """A denoiser in evaluation mode, the clips of its run, and samples.

    Args:
        denoiser: on the device.
        reference: clips of its run.
        sampler: of the samples.
        device: of the denoiser.
        num_samples: that are drawn.   seed: of their noise.
        training: what the denoiser is trained with; None where nothing asks for it.
        callback: receives every state of every walk.
        guidance: of the samples.   weak: the weaker denoiser that it needs, if any.
    """

    denoiser: Denoiser
    reference: Reference
    sampler: Sampler
    device: torch.device | str = "cpu"
    num_samples: int = 256
    seed: int = 0
    training: Training | None = None
    callback: Callable[[State], None] | None = None
    guidance: Guidance = NO_GUIDANCE
    weak: Denoiser | None = None
    num_network_calls: int = field(default=0, init=False)  # for a sample, once samples are drawn
    _features: dict[Extractor, Features] = field(default_factory=dict, init=False)

    def held_out(self) -> Iterator[tuple[Tensor, Tensor, dict[str, Tensor]]]:
        """Yield standardised held-out clips x_0 (B, C, F, H, W) on the device, index (B,) and their
        conditions.
        """
        for batch in self.reference.batches("val"):
            clips = batch.clip.to(self.device)
            conditions = self.denoiser.conditions.encode(batch.annotations)
            yield self.denoiser.statistics.standardise(clips), batch.index, conditions

    @cached_property
    def asked(self) -> list[Annotation]:
        """What is asked of each sample: what is known of held-out clips, in an order by the seed.

        After as many samples as there are held-out clips it begins again, in another order.
        """
        held_out = self.reference.held_out
        orders = range(-(-self.num_samples // len(held_out)))
        items = [i for k in orders for i in permutation(self.seed, k, len(held_out)).tolist()]
        return [held_out.annotation(i) for i in items[: self.num_samples]]

    @cached_property
    def samples(self) -> Tensor:
        """The samples, uint8 (num_samples, F, H, W, C) on the CPU; sample k depends on seed and k.

        Raises:
            ValueError: where the sampler cannot walk.
        """
        size = self.reference.batch_size
        drawn = []
        for first in tqdm(
            range(0, self.num_samples, size), desc="sampling", unit="batch", **PROGRESS
        ):
            numbers = range(first, min(first + size, self.num_samples))
            counted = CountedCalls(self.denoiser)
            weak = self.weak and CountedCalls(self.weak)
            asked = [self.asked[i] for i in numbers]
            clips = self.sampler.sample(
                self.guidance.guide(counted, asked, weak),
                self.reference.shape(len(numbers)),
                generator=per_sample_generators(self.seed, numbers),
                device=self.device,
                callback=self.callback,
            )
            num_clips = counted.num_clips + (weak.num_clips if weak else 0)
            self.num_network_calls = num_clips // len(numbers)
            drawn.append(self.denoiser.statistics.restore(clips).cpu())
        return torch.cat(drawn)

    def features(self, extractor: Extractor) -> Features:
        """Return the features of the samples, computed once."""
        if extractor not in self._features:
            parts = self.samples.split(self.reference.batch_size)
            name = f"{extractor.name} features of {len(self.samples)} samples"
            self._features[extractor] = features_of(extractor, parts, self.device, name)
        return self._features[extractor]

    def sample_facts(self) -> dict[str, Any]:
        """Return what a card says of the samples."""
        return {
            "num_samples": len(self.samples),
            "sampler": description(self.sampler),
            "guidance": description(self.guidance),
            "evaluations": self.sampler.num_calls,
            "network_calls": self.num_network_calls,
            "seed": self.seed,
        }


def features_of(
    extractor: Extractor, batches: Iterable[Tensor], device: torch.device | str, name: str
) -> Features:
    """Return the features of batches of uint8 clips, showing progress under a name."""
    shown = tqdm(batches, desc=name, unit="batch", **PROGRESS)
    pairs = [extractor.pair(batch.to(device)) for batch in shown]
    return Features(*(torch.cat(kind) for kind in zip(*pairs, strict=True)))


def description(thing: object) -> Any:
    """Return an object as its class's name and its attributes, in plain containers."""
    if thing is None or isinstance(thing, bool | int | float | str):
        return thing
    if isinstance(thing, list | tuple):
        return [description(part) for part in thing]
    attributes = thing if isinstance(thing, dict) else {"name": type(thing).__name__, **vars(thing)}
    return {key: description(value) for key, value in attributes.items()}

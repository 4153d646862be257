"""The contract of a run's data: a clip store, split by content, and the loaders of its batches.

Whoever trains passes ranks and accumulation to the loaders, so no framework is known here.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor

from ddpm_lightning.data.augmentation import Augmentation
from ddpm_lightning.data.clip import clip_format
from ddpm_lightning.data.dataset import Annotation, ClipDataset, annotations
from ddpm_lightning.data.decode import Recipe
from ddpm_lightning.data.gif_blocks import Limits
from ddpm_lightning.data.loader import ClipLoader
from ddpm_lightning.data.order import InOrder, ShuffledOrder
from ddpm_lightning.data.places import local_folder
from ddpm_lightning.data.shots import ShotMode
from ddpm_lightning.data.split import train_val_indices
from ddpm_lightning.data.store import ClipStore
from ddpm_lightning.data.windows import Windows

CHECKPOINT_KEY = "ClipDataModule"  # of state_dict() in a checkpoint: Lightning's data module

Fraction = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]


class ClipData(ABC):
    """Holds the clips of one format from a store, split by content, and loads their batches.

    format: ClipFormat.   train_set, val_set: ClipDataset, once loaded.   store: None until then.

    Args:
        size: of a frame in pixels, one number for squares or [height, width].
        num_frames, fps: of a clip; GIFs are resampled by their own clock, short ones loop.
        channels: 1 for grey, 3 for colour.
        min_seconds, max_seconds: GIFs of another duration are skipped; None sets no limit.
        shots: which shots of a GIF a training window may see, see data.shots.
        val_fraction: share of the GIFs held out, chosen by a hash of their content; with 0 the
            training clips are validated on.
        cache_path: a local folder, where decoded clips are kept.
        batch_size: clips per device and step; auto: one, until whoever trains sets the attribute to
            what fits.
        num_workers: processes that load batches; 0 is usually fastest, clips are memory-mapped.
        flip, fps_jitter, shift, zoom: of training samples, see Augmentation.
        seed: of the order of training samples and of what is random in them.
    """

    train_set: ClipDataset
    val_set: ClipDataset

    def __init__(
        self,
        size: int | list[int] = 64,
        num_frames: int = 16,
        fps: float = 10,
        channels: int = 3,
        min_seconds: float | None = None,
        max_seconds: float | None = None,
        shots: ShotMode = "any",
        val_fraction: Fraction = 0.01,
        cache_path: str = "data/cache",
        batch_size: PositiveInt | Literal["auto"] = 16,
        num_workers: NonNegativeInt = 0,
        flip: bool = False,
        fps_jitter: Share = 0.0,
        shift: Share = 0.0,
        zoom: Share = 0.0,
        seed: int = 0,
    ) -> None:
        self.format = clip_format(size, num_frames, fps, channels)
        self.min_seconds, self.max_seconds = min_seconds, max_seconds
        self.val_fraction = val_fraction
        self.cache_path = local_folder(cache_path)
        self.batch_size = 1 if batch_size == "auto" else batch_size
        self.num_workers = num_workers
        self.windows = Windows(num_frames, random=True, shots=shots)
        self.augmentation = Augmentation(flip, fps_jitter, shift, zoom)
        self.seed = seed
        self.store: ClipStore | None = None

    @abstractmethod
    def open_store(self, world_size: int = 1) -> ClipStore:
        """Open the store with clips in it; make it, or fill it far enough, if need be.

        Args:
            world_size: how many processes train together, each of which opens the store.
        Raises:
            ValueError, OSError: in one line.
        """

    def label_names(self) -> list[str]:
        """Return the names of all labels, sorted.

        Raises:
            ValueError: where clips have none.
        """
        raise ValueError("a list of URLs has no labels; use condition=none, or condition=caption")

    def recipe(self, limits: Limits) -> Recipe:
        """Return what determines a stored clip; num_frames does not: reading cuts windows."""
        form = self.format
        sizes = form.height, form.width, form.fps, form.channels
        return Recipe(*sizes, self.min_seconds, self.max_seconds, limits)

    def load(self, world_size: int = 1) -> None:
        """Open the store and split it, the first time that it is called."""
        if self.store is None:
            self.store = self.open_store(world_size)
            self._split(self.store, len(self.store))

    def grow(self) -> ClipDataset | None:
        """Return the training set with the clips that have arrived since, or None."""
        return None

    def close(self) -> None:  # noqa: B027 - most data have nothing to stop
        """Stop what runs beside training, if anything does."""

    def _split(self, store: ClipStore, num_first: int) -> None:
        """Split the store; clips that came after the first ones do not join the validation set."""
        train, _ = train_val_indices(store.entries, self.val_fraction)
        _, val = train_val_indices(store.entries[:num_first], self.val_fraction)
        self.num_first = num_first
        self.train_set = ClipDataset(
            store, train, self.windows, augmentation=self.augmentation, seed=self.seed
        )
        self.val_set = ClipDataset(store, val, replace(self.windows, random=False))

    def examples(self, most: int) -> Iterator[Tensor]:
        """Yield windows of training clips, uint8 (F, H, W, C), at most so many, spread evenly over
        at most 16 shards: of a store elsewhere, others are not copied.
        """
        clips = ClipDataset(
            self.train_set.store, self.train_set.indices, replace(self.windows, random=False)
        )
        of_clip = clips.shards()
        shards = sorted(set(of_clip))
        chosen = set(shards[:: -(-len(shards) // 16)])
        indices = [i for i, shard in enumerate(of_clip) if shard in chosen]
        for i in indices[:: -(-len(indices) // most)]:
            yield clips[i].clip[0]

    def first_clips(self, most: int) -> list[Tensor]:
        """Return clips, uint8 (F, H, W, C), at most so many: a few, to look at."""
        self.load()
        return list(self.examples(most))

    def annotations(self) -> list[Annotation]:
        """Return what is known of each clip in the store, once with each of its captions."""
        entries = self.store.entries if self.store else ()
        return [known for entry in entries for known in annotations(entry)]

    @property
    def skipped(self) -> dict[str, int]:
        """Return how many GIFs were left out, by cause."""
        return dict(self.store.skipped) if self.store else {}

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs for the same clips, in plain containers."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027 - most have no state
        """Use the clips of a checkpoint, once loaded."""

    def train_loader(
        self, rank: int = 0, world_size: int = 1, accumulate: int = 1, overfit: bool = False
    ) -> ClipLoader:
        """Return the loader of the training set for one process.

        Args:
            rank: of this process.   world_size: how many processes train together.
            accumulate: batches of an optimizer step; an epoch has whole steps.
            overfit: repeat the first batches in order, to see whether a model can learn them.
        """
        if overfit:
            in_order = InOrder(len(self.train_set), self.batch_size, rank, world_size)
            return ClipLoader(self.train_set, in_order, self.num_workers)
        shards = self.train_set.shards()
        order = ShuffledOrder(shards, self.batch_size, self.seed, rank, world_size, accumulate)
        return ClipLoader(self.train_set, order, self.num_workers, grow=self.grow)

    def val_loader(self, rank: int = 0, world_size: int = 1) -> ClipLoader:
        """Return the loader of the validation set for one process, every clip once an epoch."""
        order = InOrder(len(self.val_set), self.batch_size, rank, world_size)
        return ClipLoader(self.val_set, order, self.num_workers)

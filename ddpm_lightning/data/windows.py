"""Windows: which frames of a clip a sample shows.

Frame k of a window that starts at s and runs at speed v is the clip's frame s + floor(k v); where
the clip, or the shot, is too short for it, it is played again from its start.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ddpm_lightning.data.shots import ShotMode, choose_window

_MIDDLE = float(np.nextafter(0.5, 0))  # of n places the earlier middle one, (n - 1) // 2


@dataclass(frozen=True)
class Windows:
    """Chooses num_frames frames of each clip.

    Args:
        random: anywhere, else in the middle.
        shots: which shots a window may see, see choose_window.
    """

    num_frames: int
    random: bool
    shots: ShotMode = "any"

    def frames(
        self, shots: Sequence[int], length: int, start_draw: float, speed: float = 1.0
    ) -> np.ndarray:
        """Return the frames shown, (num_frames,) int64.

        Args:
            shots: the frames at which a shot starts, 0 first.   length: of the clip in frames.
            start_draw: in [0, 1); not used unless random.
            speed: how many times faster the clip is played.
        """
        steps = np.floor(np.arange(self.num_frames) * speed).astype(np.int64)
        span = int(steps[-1]) + 1
        place = start_draw if self.random else _MIDDLE
        start, stop = choose_window(span, length, shots, self.shots, place)
        frames: np.ndarray = start + steps % (stop - start)
        return frames

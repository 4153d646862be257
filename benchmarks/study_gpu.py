"""The study on a GPU: emoji at 32x32, several small trainings side by side, in at most 6 minutes.

    python -m benchmarks.study_gpu pack GIFS emoji.tar          # anywhere: one file
    python -m benchmarks.study_gpu run emoji.tar FOLDER         # where the GPU is
    python -m benchmarks.study_gpu run emoji.tar FOLDER --tiny  # on a CPU: whether it works

The second goes on where it was stopped; FOLDER/results.json, tables.md and figures are small enough
to be copied back. The most important arms come first; tables say what was left out for time. It is
study.py with other clips and a wider network.
"""

import argparse
import subprocess
import sys
import tarfile
from pathlib import Path

from ddpm_lightning.data.clips.source import SourceClips
from ddpm_lightning.data.sources.folder import GifFolder
from ddpm_lightning.run.directory.provenance import ROOT

SIZE, FPS, CHANNELS = 32, 10, 3
MINUTES = 5.3  # for trainings and walks; starting and reporting take the rest
FORM = [f"data.size={SIZE}", f"data.fps={FPS}", f"data.channels={CHANNELS}"]
# unet3d_tiny in full, and its recipe's batch; eager, for compiling takes as long as a training.
RECIPE = ["network.base_width=48", "data.num_frames=8", "data.batch_size=16", "model.compile=false"]
TINY = [
    *("network.base_width=16", "network.head_width=8", "data.num_frames=4", "data.batch_size=4"),
    *("trainer.limit_val_batches=2", "network.width_multipliers=[1,1,1]"),
]


def pack(gifs: Path, file: Path) -> None:
    """Write the clips of a folder of GIFs, decoded to 32x32, as one tar file."""
    data = SourceClips(
        GifFolder, str(gifs), SIZE, fps=FPS, channels=CHANNELS, cache_path=f"{file}.cache"
    )
    data.load()
    assert data.store is not None
    (store,) = (path for path in Path(f"{file}.cache").iterdir() if path.is_dir())
    with tarfile.open(file, "w") as tar:
        tar.add(store, "store")
    print(f"{len(data.store)} clips in {file}, {file.stat().st_size / 1e6:.1f} MB")


def study_words(folder: Path, is_tiny: bool) -> list[str]:
    """Return the words of study.py."""
    more = [
        *("data=clip_store", f"data.path={folder}/store", "data.val_fraction=0.3", *FORM),
        *(TINY if is_tiny else RECIPE),
    ]
    sizes = {"num_samples": 128, "steps": 1000, "max_parallel": 8, "num_seeds": 3, "num_sampled": 3}
    if is_tiny:
        sizes = {"num_samples": 32, "steps": 5, "max_parallel": 1, "num_seeds": 2, "num_sampled": 1}
    words = [f"study.{key}={value}" for key, value in sizes.items()]
    if is_tiny:
        words += ["study.evaluations=[2,3]", "study.arms=[cosine,hybrid]", "study.losses=[simple]"]
    return [
        *words,
        f"study.minutes={MINUTES}",
        f"study.data={folder}/store",
        f"study.more={more}",
        f"directory={folder}",
    ]


def run(file: Path, folder: Path, is_tiny: bool) -> int:
    """Unpack the store where it is not there yet, and run what is left of the study."""
    if not (folder / "store").exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tarfile.open(file) as tar:
            tar.extractall(folder, filter="data")
    command = [sys.executable, str(ROOT / "study.py"), *study_words(folder.absolute(), is_tiny)]
    return subprocess.run(command, check=False).returncode


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["pack", "run"])
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("--tiny", action="store_true")
    arguments = parser.parse_args()
    if arguments.command == "pack":
        pack(arguments.first, arguments.second)
    else:
        sys.exit(run(arguments.first, arguments.second, arguments.tiny))


if __name__ == "__main__":
    main()

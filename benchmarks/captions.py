"""Whether samples show what their captions ask for: digits that have a colour and a direction.

    python -m benchmarks.captions                     # writes GIFs, trains, samples, reads
    python -m benchmarks.captions trainer.max_steps=2000   # any value of the run
    python -m benchmarks.captions --run RUN --weights 2 3  # samples and reads, of a run of it

All of it by the commands that users have: a folder of GIFs with captions.tsv, train.py, sample.py.
The judge of each word, a support vector machine on real clips, reads 297 others as well.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ddpm_lightning.data.clip import ClipFormat, resample
from ddpm_lightning.data.gif import DEFAULT_LIMITS, encode, frames
from ddpm_lightning.data.sources.moving_digits import CANVAS, DIGIT, draw_digit

DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
COLOURS = {
    "red": (255, 40, 40),
    "green": (40, 220, 40),
    "blue": (70, 90, 255),
    "yellow": (240, 230, 40),
}
DIRECTIONS = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}
SENTENCES = ("a {colour} {digit} moves {way}", "the digit {digit} in {colour}, moving {way}")
FORM = ClipFormat(16, 16, 8, 10.0)
NUM_CLIPS, NUM_HELD_OUT = 3000, 297
NUM_IMAGES = 1500  # of digits in training clips; others have the rest


class Shown(NamedTuple):
    """The words of a clip that are asked for."""

    digit: str
    colour: str
    way: str

    def sentence(self, number: int) -> str:
        return SENTENCES[number].format(**self._asdict())


def clips(first: int, count: int) -> list[tuple[np.ndarray, Shown]]:
    """Return frames (8, 32, 32, 3) uint8 and what they show; digits in turn, the rest by lot."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    made = []
    for number in range(first, first + count):
        generator = np.random.default_rng(number)
        colour, way = generator.choice(list(COLOURS)), generator.choice(list(DIRECTIONS))
        path = generator.uniform(1.0, 1.5) * (np.arange(FORM.num_frames) - 3.5)
        centre = generator.uniform(-1, 1, 2) + (CANVAS - DIGIT) / 2
        rows, columns = centre[:, None] + np.array(DIRECTIONS[way])[:, None] * path
        which = number % NUM_IMAGES if number < NUM_CLIPS else number - NUM_CLIPS + NUM_IMAGES
        grey = draw_digit(digits.images[which], rows, columns)
        film = np.rint(grey[..., None] / 255 * np.array(COLOURS[colour])).astype(np.uint8)
        made.append((film, Shown(DIGITS[digits.target[which]], str(colour), str(way))))
    return made


def write(folder: Path) -> None:
    """Write training clips as GIFs, with two captions each."""
    folder.mkdir(parents=True)
    lines = []
    for number, (film, shown) in enumerate(clips(0, NUM_CLIPS)):
        name = f"{number:05d}.gif"
        (folder / name).write_bytes(encode(film, [100] * len(film)))
        lines += [f"{name}\t{shown.sentence(k)}" for k in range(len(SENTENCES))]
    (folder / "captions.tsv").write_text("\n".join(lines))


def features(clip: np.ndarray) -> dict[str, np.ndarray]:
    """Return what tells a word of a clip (8, 16, 16, 3) uint8, by the word's kind."""
    x = clip.astype(np.float64) / 255
    grey = x.max(-1)
    mass = grey.sum((1, 2)) + 1e-6
    places = np.indices(grey.shape[1:])  # (2, H, W)
    centres = np.einsum("khw,fhw->fk", places, grey) / mass[:, None]
    shifts = np.rint(7.5 - centres).astype(int)
    upright = [np.roll(g, s, axis=(0, 1)) for g, s in zip(grey, shifts, strict=True)]
    colour = np.einsum("fhw,fhwc->c", grey, x)
    return {
        "digit": 2 * np.mean(upright, axis=0).ravel(),
        "colour": colour / (np.linalg.norm(colour) + 1e-6),
        "way": centres[-1] - centres[0],
    }


def read(judged: list[np.ndarray], asked: list[Shown]) -> dict[str, float]:
    """Return the share of clips (8, 16, 16, 3) whose words are read as asked, by kind and in all.

    The judge of each kind of word has learned 3,000 real clips.
    """
    from sklearn.svm import SVC

    real = [(_small(film), shown) for film, shown in clips(0, NUM_CLIPS)]
    right = {}
    for kind in Shown._fields:
        judge = SVC(C=10.0)
        judge.fit([features(c)[kind] for c, _ in real], [getattr(s, kind) for _, s in real])
        words = judge.predict([features(clip)[kind] for clip in judged])
        right[kind] = words == np.array([getattr(shown, kind) for shown in asked])
    together = np.logical_and.reduce(list(right.values()))
    return {kind: float(hits.mean()) for kind, hits in right.items()} | {"all": together.mean()}


def _small(film: np.ndarray) -> np.ndarray:
    """Return the clip of frames as the data path makes it."""
    return resample(((frame, 100) for frame in film), FORM)


def sample(run: Path, weight: float, steps: int) -> tuple[list[np.ndarray], list[Shown]]:
    """Return clips drawn by sample.py, one for each of the 160 things to be asked for."""
    asked = [Shown(d, c, w) for d in DIGITS for c in COLOURS for w in DIRECTIONS]
    file, output = run / "asked.txt", run / f"asked-{weight:g}"
    file.write_text("\n".join(shown.sentence(0) for shown in asked))
    _command(
        "sample.py", f"checkpoint={run}", f"captions={file}", f"output={output}",
        "guidance=classifier_free", f"guidance.weight={weight}", "sampler=ancestral",
        f"sampler.num_evaluations={steps}", f"num_samples={len(asked)}", "batch_size=40",
    )  # fmt: skip
    paths = sorted((output / "clips").glob("*.gif"))
    return [np.stack([f for f, _ in frames(p.read_bytes(), DEFAULT_LIMITS)]) for p in paths], asked


def _command(*words: str) -> None:
    print("$ python", " ".join(words), flush=True)
    subprocess.run([sys.executable, *words], check=True, cwd=Path(__file__).parents[1])


def _show(name: str, shares: dict[str, float]) -> None:
    print(f"{name:24}", "  ".join(f"{kind} {share:.3f}" for kind, share in shares.items()))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", type=Path, help="of this script; without it, one is trained")
    parser.add_argument("--weights", type=float, nargs="+", default=[1.0, 2.0], help="of guidance")
    parser.add_argument("--steps", type=int, default=50, help="of sampling")
    parser.add_argument("--folder", type=Path, default=Path("data/captioned_digits"))
    options, words = parser.parse_known_args()
    run = options.run or Path("outputs/captioned_digits")
    if options.run is None:
        if not options.folder.exists():
            write(options.folder)
        _command(
            "train.py", "data=gif_folder", f"data.path={options.folder}", "data.size=16",
            "data.num_frames=8", "data.batch_size=8", "condition=caption",
            "network.temporal_mixing=separable", f"run_dir={run}", *words,
        )  # fmt: skip
    others = clips(NUM_CLIPS, NUM_HELD_OUT)
    _show("real clips", read([_small(film) for film, _ in others], [s for _, s in others]))
    for weight in options.weights:
        _show(f"samples, weight {weight:g}", read(*sample(run, weight, options.steps)))


if __name__ == "__main__":
    main()

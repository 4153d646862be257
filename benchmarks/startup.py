"""How long it takes from the command to the end of the first training step, beside a script written
by hand with the same network, batch and loggers (benchmarks/bare.py); and to a mistake's message.

python -m benchmarks.startup FOLDER [NUM_ROUNDS]

Fresh processes that take turns, on one thread. Seconds of processor time hold on a machine that has
other work, seconds on the clock only on one that has not.
"""

import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
# Ends the process when a module's training_step is entered for the second time.
STOPWATCH = """
import os, time
from {module} import {name}
step, calls = {name}.training_step, []
def training_step(self, *args):
    if calls:
        print("FIRST STEP", time.time(), sum(os.times()[:4]), flush=True)
        raise KeyboardInterrupt
    calls.append(1)
    return step(self, *args)
{name}.training_step = training_step
"""
BARE = (
    STOPWATCH.format(module="benchmarks.bare", name="Bare")
    + """
from benchmarks.bare import main
main()
"""
)
WATCH = STOPWATCH.format(module="ddpm_lightning.training.module", name="DiffusionModule")
# Set when Lightning is first imported, so that imports come in the order of a user's command.
OURS = f"""
import gc, runpy
gc.disable()  # as train.py does
import ddpm_lightning.run.commands.train as train
settled = train.settled
def watched(*parts):
    ready = settled(*parts)
    exec({WATCH!r}, {{}})
    return ready
train.settled = watched
runpy.run_path({str(ROOT / "train.py")!r}, run_name="__main__")
"""
MISTAKES = {
    "unknown key": ["trainer.max_stesp=4"],
    "wrong type": ["optimizer.lr=abc"],
    "wrong type in the trainer": ["trainer.max_steps=abc"],
    "unknown key in a callback": ["+callbacks.checkpoints.evry=1"],
    "W&B mode": ["logger=wandb", "logger.mode=ofline"],
    "no steps": ["noise.num_steps=0"],
    "negative batch": ["data.batch_size=-1"],
    "missing data": ["data=gif_folder", "data.path=nowhere"],
    "frames that do not fit": ["data.size=7"],
    "sampler that cannot walk": ["sampler.num_evaluations=1001"],
    "absent accelerator": ["trainer=gpu"],
    "unwritable output": ["outputs_dir=/proc/none"],
    "not a run": ["resume=nowhere"],
    "too little memory": ["data.batch_size=1000000"],
    "mistake in a sweep": ["-m", "noise=linear,cosin"],
}


class Spent(NamedTuple):
    """Seconds on the clock, and of processor time."""

    clock: float
    processor: float


def run(folder: Path, words: list[str]) -> tuple[str, str, Spent]:
    """What a fresh Python process prints to its two streams, and what it takes."""
    before, began = os.times(), time.time()
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    after = os.times()
    processor = sum(after[2:4]) - sum(before[2:4])
    return done.stdout, done.stderr, Spent(time.time() - began, processor)


def to_first_step(folder: Path, program: str, words: list[str]) -> Spent:
    began = time.time()
    out, err, _ = run(folder, ["-c", program, *words])
    told = [line.split() for line in out.splitlines() if line.startswith("FIRST STEP")]
    if not told:
        raise RuntimeError(err)
    return Spent(float(told[0][2]) - began, float(told[0][3]))


def main() -> None:
    folder, num_rounds = Path(sys.argv[1]).absolute(), int((sys.argv[2:] or ["3"])[0])
    folder.mkdir(parents=True, exist_ok=True)
    print(f"to the first step; median of {num_rounds}: seconds on the clock, of processor time")
    print("logger    bare           ours           ratio")
    for logger in ("csv", "default"):
        bare, ours = [], []
        for number in range(num_rounds + 1):
            of_bare = to_first_step(folder, BARE, [str(folder), logger])
            of_ours = to_first_step(folder, OURS, [f"logger={logger}"])
            if number:  # the first ones write clips, caches and byte code
                bare.append(of_bare)
                ours.append(of_ours)
        ratios = [
            [b / a for a, b in zip(*pair, strict=True)] for pair in zip(bare, ours, strict=True)
        ]
        cells = [
            [median(column) for column in zip(*rows, strict=True)] for rows in (bare, ours, ratios)
        ]
        print(f"{logger:8}", *(f"{clock:6.2f} {processor:6.2f} " for clock, processor in cells))
    print(f"to a mistake's message; load {os.getloadavg()[0]:.1f}")
    for name, words in MISTAKES.items():
        _, err, spent = run(folder, [str(ROOT / "train.py"), *words])
        line = err.strip().splitlines()[-1][:60]
        print(f"{name:28} {spent.clock:6.2f} {spent.processor:6.2f}  {line}", flush=True)


if __name__ == "__main__":
    main()

"""How long it takes from the command to the end of the first training step, beside a script written
by hand with the same network, batch and loggers (benchmarks/bare.py).

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

ROOT = Path(__file__).parents[1]
# Tells when training_step is entered for the second time, and ends there.
STOPWATCH = """
import os, runpy, sys, time
import {module} as module
step, calls = module.{name}.training_step, []
def training_step(self, *args):
    if calls:
        used = os.times()
        print("FIRST STEP", time.time(), sum(used[:4]), flush=True)
        raise KeyboardInterrupt
    calls.append(1)
    return step(self, *args)
module.{name}.training_step = training_step
"""
OURS = STOPWATCH.format(module="ddpm_lightning.training.module", name="DiffusionModule")
RUN_OURS = f"""
import sys, train
from ddpm_lightning.run.cli import run_jobs
early = train.main
def main(job):
{"".join(f"    {line}{chr(10)}" for line in OURS.splitlines())}
    early(job)
run_jobs(main, train.main_sweep, "config")
"""
RUN_BARE = STOPWATCH.format(module="benchmarks.bare", name="Bare") + "\nmodule.main()\n"


def seconds(folder: Path, program: str, words: list[str]) -> tuple[float, float]:
    """On the clock, and of processor time."""
    began = time.time()
    done = subprocess.run(
        [sys.executable, "-c", program, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    told = [line.split() for line in done.stdout.splitlines() if line.startswith("FIRST STEP")]
    if not told:
        raise RuntimeError(done.stderr)
    return float(told[0][2]) - began, float(told[0][3])


def main() -> None:
    folder, num_rounds = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 3
    folder.mkdir(parents=True, exist_ok=True)
    for logger in ("csv", "default"):
        rows: dict[str, list[tuple[float, float]]] = {"bare": [], "ours": []}
        for number in range(num_rounds + 1):
            found = {
                "bare": seconds(folder, RUN_BARE, [str(folder), logger]),
                "ours": seconds(folder, RUN_OURS, [f"logger={logger}"]),
            }
            if number:  # after one that writes data, caches and .pyc files
                for name, pair in found.items():
                    rows[name].append(pair)
        for name, pairs in rows.items():
            print(
                logger,
                name,
                *(f"{median(x):.2f}" for x in zip(*pairs, strict=True)),
                pairs,
                flush=True,
            )


if __name__ == "__main__":
    main()

"""Several ranks: one run however they are started, and all end where one does."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from ddpm_lightning.files.checkpoints import read
from ddpm_lightning.plots.curves import read_metrics
from ddpm_lightning.run.config.check import first_difference
from ddpm_lightning.run.directory.start import read_status
from tests.commands import ROOT, TINY, alive, wait_for, write_gifs
from tests.run.test_killed import rows

WORDS = [*TINY, "logger=csv", "trainer.devices=2"]
ENDLESS = ["trainer.max_steps=100000", "trainer.val_check_interval=100000"]
RECORDER = str(ROOT / "tests" / "run" / "recorder.py")
PAUSING = str(ROOT / "tests" / "run" / "pausing.py")
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
# Of its report.
ROOT_CAUSE = "rank : {0} (local_rank: {0}) exitcode : -9 (pid: {1}) (SIGKILL)"


class Group:
    """Processes that were started below one folder, and all that these have started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        write_gifs(folder / "gifs", 13, num_frames=8)
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(
        self,
        *words: str,
        before: tuple[str, ...] = (),
        environment: dict[str, str] | None = None,
    ) -> None:
        """A Python process, whose output goes to a file; `before` is a command that runs it."""
        with self._output(len(self.processes)).open("wb") as output:
            process = subprocess.Popen(
                [*before, sys.executable, *words],
                cwd=self.folder,
                env={
                    **os.environ,
                    "PYTHONPATH": str(ROOT),
                    "OMP_NUM_THREADS": "1",
                    **(environment or {}),
                },
                stdout=output,
                stderr=output,
            )
        self.processes.append(process)

    def codes(self, seconds: float = 600) -> list[int]:
        """Exit codes, when all have ended."""
        until = time.monotonic() + seconds
        return [p.wait(max(0.1, until - time.monotonic())) for p in self.processes]

    def output(self, number: int = -1) -> str:
        return self._output(number % len(self.processes)).read_text()

    def rank(self, number: int) -> int:
        """The process that writes this rank's record of its steps."""
        return int((self.folder / f"rank-{number}.pid").read_text())

    def trains(self, num_steps: int = 5) -> None:
        """Waits until all ranks have trained as many steps."""

        def found() -> bool:
            assert all(process.poll() is None for process in self.processes[-1:]), self.output()
            return all(len(rows(self.folder, rank)) > num_steps for rank in range(2))

        wait_for(found)

    def pauses(self) -> None:
        """Waits until a rank pauses in its step, where the others do not wait long for it."""
        wait_for((self.folder / "paused").exists)

    def status(self) -> str:
        return str(json.loads((self.folder / "out" / "status.json").read_text())["status"])

    def _output(self, number: int) -> Path:
        return self.folder / f"output-{number}.txt"


def srun(rank: int, port: int) -> dict[str, str]:
    """What srun gives one of two tasks on one node."""
    return {
        "SLURM_JOB_ID": "4711",
        "SLURM_JOB_NAME": "train",
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_NNODES": "1",
        "SLURM_NODEID": "0",
        "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": str(rank),
        "SLURM_NODELIST": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def last_words(group: Group) -> str:
    """In one line; of torchrun's report, what it takes for the cause."""
    return " ".join(group.output().split("Root Cause")[-1].split())


def paused(rank: int) -> dict[str, str]:
    """Have pausing.py keep a rank in its eighth step for ever."""
    return {"PAUSE_RANK": str(rank), "PAUSE_IN": "training_step", "PAUSE_SECONDS": "1000"}


def free_port() -> int:
    """One that the kernel gives to nobody who asks for any, and no other process of pytest takes:
    of the hundred below 32768 that belong to this one.
    """
    first = 12_768 + 100 * (os.getpid() % 200)
    for port in range(first, first + 100):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise OSError("no port is free")


@pytest.mark.long
def test_torchrun_makes_one_run_saves_it_at_sigterm_and_goes_on(group: Group) -> None:
    group.start(*TORCHRUN, RECORDER, *WORDS, *ENDLESS)
    group.trains()
    group.processes[0].terminate()
    assert group.codes() == [1]  # torchrun's own, whatever its ranks end with
    (run,) = (group.folder / "outputs").iterdir()
    told = f"interrupted by SIGTERM; go on with: python train.py resume=outputs/{run.name}"
    assert told in group.output()
    step = read(run / "checkpoints" / "last.ckpt")["global_step"]
    assert step == rows(group.folder)[-1][0] + 1
    group.start(*TORCHRUN, RECORDER, "resume=last", f"trainer.max_steps={step + 2}")
    assert group.codes() == [1, 0], group.output()
    assert [row[0] for row in rows(group.folder, 1)] == list(range(step + 2))
    assert json.loads((run / "status.json").read_text())["status"] == "finished"
    assert list((group.folder / "outputs").iterdir()) == [run]


@pytest.mark.long
def test_srun_makes_one_run(group: Group) -> None:
    port = free_port()
    for rank in range(2):
        group.start(RECORDER, *WORDS, environment=srun(rank, port))
    assert group.codes() == [0, 0], group.output()
    (run,) = (group.folder / "outputs").glob("2*")
    assert json.loads((run / "status.json").read_text())["status"] == "finished"
    numbers = [number for rank in range(2) for row in rows(group.folder, rank) for number in row[1]]
    assert sorted(numbers) == list(range(16))  # four steps of two clips each
    assert group.output(1) == ""


@pytest.mark.long
@pytest.mark.parametrize("trained_on", [[], ["condition=caption", "times=frames"]])
def test_two_ranks_measure_what_one_does(group: Group, trained_on: list[str]) -> None:
    """Statistics of the clips, val/error and the quality of samples, which rank 0 draws: so both
    have trained the same, with captions and a level for every frame as well.
    """
    write_gifs(group.folder / "gifs", 120, num_frames=8)
    lines = [f"{number:02d}.gif\ta square, number {number}\n" for number in range(120)]
    (group.folder / "gifs" / "captions.tsv").write_text("".join(lines))
    words = [*TINY, *trained_on, "logger=csv", "callbacks.quality.every_n_validations=1"]
    words += ["callbacks.quality.num_samples=32", "callbacks.samples.num_samples=2"]
    port = free_port()
    group.start(RECORDER, *words, "data.batch_size=4", "run_dir=one")
    assert group.codes() == [0], group.output()
    for rank in range(2):
        ranks = ["trainer.devices=2", "run_dir=two"]
        group.start(RECORDER, *words, *ranks, environment=srun(rank, port))
    assert group.codes() == [0, 0, 0], group.output()
    one, two = (read_metrics(group.folder / name / "metrics.csv") for name in ("one", "two"))
    for metric in ("val/error", "val/error_se", "val/quality_spatial", "val/quality_temporal"):
        assert two[metric][0] == one[metric][0] == [1, 3]
        assert two[metric][1] == pytest.approx(one[metric][1], rel=1e-3), metric
    clips = [
        json.loads((group.folder / name / "clips.json").read_text()) for name in ("one", "two")
    ]
    assert clips[0] == clips[1]


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[list[str]]:
    """Two network namespaces, named, with a cable between them: 10.213.0.1 and 10.213.0.2."""
    names = [f"ddpm-{os.getpid()}-{i}" for i in range(2)]
    try:
        for name in names:
            ip("netns", "add", name)
        ip(
            "-n",
            names[0],
            "link",
            "add",
            "cable",
            "type",
            "veth",
            "peer",
            "cable",
            "netns",
            names[1],
        )
        for i, name in enumerate(names):
            ip("-n", name, "address", "add", f"10.213.0.{i + 1}/24", "dev", "cable")
            for device in ("lo", "cable"):
                ip("-n", name, "link", "set", device, "up")
        yield names
    except (OSError, subprocess.CalledProcessError) as e:
        pytest.skip(f"no network namespaces can be made here: {e}")
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def start_nodes(
    group: Group,
    nodes: list[str],
    *words: str,
    script: str = RECORDER,
    environment: dict[str, str] | None = None,
) -> None:
    for i, name in enumerate(nodes):
        place = ["--nnodes=2", f"--node-rank={i}", "--master-addr=10.213.0.1", "--master-port=4711"]
        group.start(
            *TORCHRUN[:2],
            "--nproc-per-node=1",
            *place,
            script,
            *words,
            "trainer.devices=1",
            "trainer.num_nodes=2",
            before=("ip", "netns", "exec", name),
            environment={"GLOO_SOCKET_IFNAME": "cable", **(environment or {})},
        )


@pytest.mark.long
def test_two_nodes_make_one_run(group: Group, nodes: list[str]) -> None:
    start_nodes(group, nodes, *TINY, "logger=csv", "run_dir=out")
    assert group.codes() == [0, 0], group.output(0)
    assert group.status() == "finished"
    numbers = [number for rank in range(2) for row in rows(group.folder, rank) for number in row[1]]
    assert sorted(numbers) == list(range(16))


@pytest.mark.long
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_rank_that_dies_on_one_node_ends_the_other(
    number: signal.Signals, rank: int, group: Group, nodes: list[str]
) -> None:
    """A rank that is stopped stays so: nobody on its machine misses it."""
    words = [*TINY, "logger=csv", *ENDLESS, "run_dir=out", "callbacks.hang.seconds=10"]
    start_nodes(group, nodes, *words, script=PAUSING, environment=paused(rank))
    group.pauses()
    os.kill(group.rank(rank), number)
    assert group.processes[1 - rank].wait(600) != 0
    assert "another rank has ended or hangs" in group.output(1 - rank)
    if number == signal.SIGSTOP:
        os.kill(group.rank(rank), signal.SIGKILL)
    assert 0 not in group.codes()
    wait_for(lambda: not alive(group.folder))


@pytest.mark.long
def test_ranks_started_with_different_words_stop_before_anything_is_made(group: Group) -> None:
    port = free_port()
    for rank in range(2):
        group.start(RECORDER, *WORDS, f"optimizer.lr=0.{rank + 1}", environment=srun(rank, port))
    assert group.codes() == [2, 2]
    assert group.output(0).splitlines()[-1] == (
        "error: the ranks have different configurations: optimizer.lr=0.2 at rank 1, 0.1 at "
        "rank 0; start all of them with the same command"
    )
    assert not (group.folder / "outputs").exists()


BY_AGENT: list[str] = []
KILLED = "rank {} (process {}): killed by signal 9"
FAULTS = [
    (BY_AGENT, 1, signal.SIGKILL, KILLED),
    (BY_AGENT, 0, signal.SIGKILL, KILLED),
    (BY_AGENT, 0, signal.SIGSTOP, KILLED),
    (BY_AGENT, 1, signal.SIGSTOP, KILLED),
    (TORCHRUN, 0, signal.SIGKILL, ROOT_CAUSE),
    (TORCHRUN, 1, signal.SIGKILL, ROOT_CAUSE),
    (TORCHRUN, 1, signal.SIGSTOP, ROOT_CAUSE),
]


@pytest.mark.long
@pytest.mark.parametrize(("launcher", "rank", "number", "cause"), FAULTS)
def test_a_rank_that_is_killed_or_stopped_ends_all(
    launcher: list[str], rank: int, number: signal.Signals, cause: str, group: Group
) -> None:
    """Under torchrun, one that is stopped in its step."""
    words = [*WORDS, *ENDLESS, "run_dir=out", "callbacks.hang.seconds=10"]
    group.start(*launcher, PAUSING, *words, environment=paused(rank))
    group.pauses()
    victim = group.rank(rank)
    os.kill(victim, number)
    assert group.codes() == [1]
    wait_for(lambda: not alive(group.folder))
    assert cause.format(rank, victim) in last_words(group)
    assert read_status(group.folder / "out")["status"] == "failed"
    if launcher == BY_AGENT:
        error = read_status(group.folder / "out")["error"]
        assert error.startswith(cause.format(rank, victim))
        assert group.output().splitlines()[-1] == f"error: {error}"
        assert error in (group.folder / "out" / "train.log").read_text()


@pytest.mark.long
@pytest.mark.parametrize("launcher", [BY_AGENT, TORCHRUN])
def test_ranks_whose_agent_is_killed_save_and_end(launcher: list[str], group: Group) -> None:
    group.start(*launcher, RECORDER, *WORDS, *ENDLESS, "run_dir=out")
    group.trains()
    group.processes[0].kill()
    wait_for(lambda: not alive(group.folder))
    assert group.status() == "interrupted"
    last = read(group.folder / "out" / "checkpoints" / "last.ckpt")["global_step"]
    assert last == rows(group.folder)[-1][0] + 1


@pytest.mark.long
@pytest.mark.parametrize(("launcher", "rank"), [(BY_AGENT, 1), (BY_AGENT, 0), (TORCHRUN, 1)])
def test_a_rank_that_hangs_in_a_step_ends_all(launcher: list[str], rank: int, group: Group) -> None:
    words = [*WORDS, *ENDLESS, "run_dir=out", "callbacks.hang.seconds=10"]
    group.start(*launcher, PAUSING, *words, environment=paused(rank))
    assert group.codes() == [1]
    wait_for(lambda: not alive(group.folder))
    victim = group.rank(rank)
    cause = ROOT_CAUSE if launcher == TORCHRUN else f"error: {KILLED}; if it hung"
    assert cause.format(rank, victim) in last_words(group)
    log = (group.folder / "out" / "train.log").read_text()
    assert re.search(r'"/.*/tests/run/pausing.py", line \d+ in pause\n', log)
    assert read_status(group.folder / "out")["status"] == "failed"


@pytest.mark.long
def test_a_rank_may_wait_for_its_data_while_the_others_are_in_their_step(group: Group) -> None:
    words = [*WORDS, "trainer.max_steps=12", "run_dir=out", "callbacks.hang.seconds=10"]
    pause = {"PAUSE_RANK": "1", "PAUSE_IN": "on_before_batch_transfer", "PAUSE_SECONDS": "30"}
    group.start(PAUSING, *words, environment=pause)
    assert group.codes() == [0], group.output()
    assert group.status() == "finished"


@pytest.mark.long
def test_a_signal_does_not_wait_for_a_grid_of_samples(group: Group) -> None:
    """Which takes minutes, while the other rank waits."""
    long = ["callbacks.samples.first_step=3", "callbacks.samples.num_samples=64"]
    steps = ["noise.num_steps=1000", "sampler.num_evaluations=999"]
    group.start(RECORDER, *WORDS, *ENDLESS, *long, *steps, "run_dir=out")
    group.trains(2)
    time.sleep(2)
    assert len(rows(group.folder)) == 3
    group.processes[0].terminate()
    assert group.codes() == [143], group.output()
    wait_for(lambda: not alive(group.folder))
    assert read(group.folder / "out" / "checkpoints" / "last.ckpt")["global_step"] == 3
    assert "samples of step 3 are not drawn" in group.output()
    assert group.status() == "interrupted"


@pytest.mark.long
def test_a_wrong_number_of_ranks_is_named(group: Group) -> None:
    group.start(*TORCHRUN, RECORDER, *TINY, "logger=csv", "trainer.devices=1")
    assert group.codes() == [1]
    assert "2 ranks were started, but trainer.devices=1 trainer.num_nodes=1 makes 1" in (
        group.output()
    )


def test_the_first_key_that_differs_is_found() -> None:
    first = {"seed": 0, "data": {"path": "x", "flip": True}}
    assert first_difference(first, json.loads(json.dumps(first))) is None
    other = {"seed": 0, "data": {"path": "x"}}
    assert first_difference(first, other) == ("data.flip", True, None)
    assert first_difference(other, first) == ("data.flip", None, True)

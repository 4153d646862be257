"""W&B fails, and the run goes on: no key, no server, one that goes away, its own process killed."""

import json
import os
import signal
import threading
from collections import UserDict
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import wandb

from ddpm_lightning.training.loggers import WandbRun
from tests.commands import TINY, Call, start, wait_for, write_gifs

pytestmark = pytest.mark.slow

ONLINE = ["logger=wandb", "logger.mode=online", "run_dir=out"]
ONE_STEP = ["trainer.max_steps=1", "trainer.val_check_interval=1"]
OFFLINE = "W&B is offline: "
ENDED = "W&B logs nothing more, metrics.csv has all: "


class Server(ThreadingHTTPServer):
    """As much of W&B's server as takes a run in; gone when it is sent the first of its data."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.is_gone = threading.Event()

    def vanish(self) -> None:
        self.is_gone.set()
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        is_stream = not self.path.startswith("/graphql")
        if is_stream or asked.get("operationName") == "CreateRunFiles":
            threading.Thread(target=self.server.vanish).start()
            return
        given = asked.get("variables") or {}
        project = {"id": "1", "name": "p", "entity": {"id": "1", "name": "e"}}
        bucket = {"id": "1", "name": given.get("name"), "config": "{}", "project": project}
        data = {"upsertBucket": {"bucket": bucket, "inserted": True}}
        answer = json.dumps({"data": data if "upsertBucket" in asked["query"] else {}}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(autouse=True)
def account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A key for a server that refuses connections, and nothing that W&B knows from before."""
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    wandb.teardown()
    yield
    wandb.teardown()


@pytest.mark.long
def test_without_a_key_a_run_goes_on_offline(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_API_KEY")
    result = call("train", *TINY, *ONE_STEP, *ONLINE)
    assert result.code == 0, result.err
    told = result.out + result.err
    assert told.count(OFFLINE + "no API key is stored; wandb login stores one\n") == 1
    assert told.lower().count("warning") == 0
    assert "wandb sync out/wandb/offline-run-*" in result.out
    (run,) = (tmp_path / "out" / "wandb").glob("offline-run-*")
    assert list(run.glob("*.wandb"))


@pytest.mark.long
def test_without_a_server_a_run_goes_on_offline(call: Call, tmp_path: Path) -> None:
    result = call("train", *TINY, *ONE_STEP, *ONLINE, "logger.settings.init_timeout=2")
    assert result.code == 0, result.err
    told = result.out + result.err
    assert told.count(OFFLINE) == 1
    assert "connection refused" in told
    assert told.lower().count("warning") == 0
    assert "wandb sync out/wandb/offline-run-*" in result.out
    (run,) = (tmp_path / "out" / "wandb").glob("offline-run-*")
    assert list(run.glob("*.wandb"))


@pytest.mark.long
def test_a_server_that_goes_away_keeps_no_run_from_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_gifs(tmp_path / "gifs")
    server = Server()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.server_port}")
    words = [*ONLINE, "logger.settings.finish_timeout=3", "trainer.max_steps=10"]
    process = start(tmp_path, "train", *TINY, *words, "callbacks.samples.first_step=1000")
    out, err = process.communicate(timeout=600)
    assert server.is_gone.is_set()
    assert process.returncode == 0, err
    assert "done: step 10" in out
    (run,) = (tmp_path / "out" / "wandb").glob("run-*")
    last = out.strip().splitlines()[-1]
    assert last.startswith("W&B: Timed out finishing run; ")
    assert OFFLINE not in out
    assert last.endswith(f"send the rest with: wandb sync {run.relative_to(tmp_path)}")


def test_an_error_that_is_not_of_wandb_is_not_taken_for_one(tmp_path: Path) -> None:
    """Torch raises that of a killed loader process wherever the main thread happens to be."""

    class Metrics(UserDict[str, float]):
        def __getitem__(self, key: str) -> float:
            raise RuntimeError("DataLoader worker (pid 1) is killed by signal: Killed.")

    logger = WandbRun("offline", {"silent": True}, save_dir=tmp_path, id="abcd")
    logger.log_metrics({"loss": 1.0}, step=0)
    with pytest.raises(RuntimeError, match="DataLoader worker"):
        logger.log_metrics(Metrics(loss=1.0), step=1)
    logger.log_metrics({"loss": 1.0}, step=1)
    wandb.finish()
    assert len(list((tmp_path / "wandb").glob("offline-run-*-abcd"))) == 1


@pytest.mark.long
def test_a_run_goes_on_without_the_process_of_wandb(tmp_path: Path) -> None:
    write_gifs(tmp_path / "gifs")
    words = ["logger=wandb", "run_dir=out", "trainer.max_steps=200", "run_id=abcd"]
    words += ["trainer.val_check_interval=1000", "callbacks.samples.first_step=3"]
    process = start(tmp_path, "train", *TINY, *words)
    try:
        wait_for(lambda: list(tmp_path.rglob("step_000003.gif")))
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        (core,) = (p for p in children if b"wandb-core" in Path(f"/proc/{p}/cmdline").read_bytes())
        os.kill(int(core), signal.SIGKILL)
        out, err = process.communicate(timeout=600)
    finally:
        process.kill()
    assert process.returncode == 0, err
    assert out.count(ENDED) == 1
    assert "Traceback" not in err
    assert (tmp_path / "out" / "metrics.csv").read_text().count("\n") > 20
    (run,) = (tmp_path / "out" / "wandb").glob("offline-run-*-abcd")
    assert list(run.glob("*.wandb"))

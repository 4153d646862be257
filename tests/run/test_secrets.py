"""Secrets of the environment and of addresses are in nothing that a run writes or says."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from ddpm_lightning.run.config.check import check
from ddpm_lightning.run.config.secrets import find_login, redacted
from tests.commands import TINY, Call, assert_user_error, spawn, write_gifs

SECRET = "Pa55w0rd"
ENVIRONMENT = {
    "WANDB_API_KEY": SECRET.ljust(40, "0"),
    "HF_TOKEN": f"hf_{SECRET}",
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "LOGIN": f"me:{SECRET}",
}
LISTS = [
    "https://${oc.env:TOKEN}@127.0.0.1:9/list.tsv",
    "https://127.0.0.1:9/list.tsv?t=${oc.env:TOKEN}",
]


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another test's secrets are not in these."""
    monkeypatch.setattr("ddpm_lightning.run.config.secrets._secrets", set())


def holding(folder: Path) -> list[str]:
    files = (path for path in folder.rglob("*") if path.is_file() and ".git" not in path.parts)
    return [str(path) for path in files if SECRET.encode() in path.read_bytes()]


@pytest.mark.long
def test_no_secret_is_written_or_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a sweep with W&B and TensorBoard, one job of which fails and names its address."""
    write_gifs(tmp_path / "gifs")
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DATA", "gifs")
    for command in (["init", "-q"], ["remote", "add", "origin", f"https://me:{SECRET}@host/x"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    address = 'data.path="${oc.env:DATA}","https://${oc.env:LOGIN}@127.0.0.1:9/none"'
    words = [word for word in TINY if word != "data.path=gifs"]
    result = spawn(tmp_path, "train", "-m", *words, address, cold=True)
    assert result.code == 1, result
    assert "1 of 2 jobs failed" in result.err
    assert SECRET not in result.out + result.err
    assert holding(tmp_path) == []
    (job,) = tmp_path.rglob("000_*/config.yaml")
    assert yaml.safe_load(job.read_text())["data"]["path"] == "gifs"
    assert list(job.parent.glob("wandb/offline-run-*/*.wandb"))
    assert list(job.parent.glob("tensorboard/*"))


@pytest.mark.slow
def test_an_address_with_a_login_is_refused(call: Call, tmp_path: Path) -> None:
    words = ["data=tgif", f"data.list=https://me:{SECRET}@host/list.tsv"]
    result = call("train", *words)
    assert_user_error(result, "data.list holds a login", '"PROTOCOL://${oc.env:LOGIN}@HOST/.."')
    assert SECRET not in result.err
    assert not (tmp_path / "outputs").exists()


@pytest.mark.long
def test_a_login_from_the_environment_is_needed_each_time(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGIN", f"me:{SECRET}")
    given = 'data.list="https://${oc.env:LOGIN}@127.0.0.1:9/list.tsv"'
    begin = ["data=tgif", given, "data.cache_path=data/cache", "run_dir=out"]
    for words in (begin, ["resume=out"], ["resume=out", "data=tgif", given]):
        result = call("train", *words, "logger=csv", "trainer=cpu", "trainer.precision=32-true")
        assert_user_error(result, "https://***@127.0.0.1:9/list.tsv cannot be read")
    composed = yaml.safe_load((tmp_path / "out" / "composed.yaml").read_text())
    assert composed["config"]["data"]["list"] == "https://${oc.env:LOGIN}@127.0.0.1:9/list.tsv"
    assert len(list((tmp_path / "out" / "starts").glob("*.json"))) == 3
    assert holding(tmp_path) == []
    monkeypatch.delenv("LOGIN")
    assert_user_error(call("train", "resume=out"), "LOGIN")


@pytest.mark.long
@pytest.mark.parametrize(
    "address", [LISTS[0], *(pytest.param(a, marks=pytest.mark.long) for a in LISTS[1:])]
)
@pytest.mark.parametrize(
    "token", [f'"{SECRET}/\\+ é', pytest.param(f"ghp_{SECRET}", marks=pytest.mark.long)]
)
def test_a_token_is_secret_wherever_it_stands(
    token: str, address: str, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", token)
    begin = ["data=tgif", f"data.list='{address}'", "data.cache_path=data/cache", "run_dir=out"]
    for words in (begin, ["resume=out"]):
        result = call("train", *words, "logger=csv", "trainer=cpu", "trainer.precision=32-true")
        shown = address.replace("${oc.env:TOKEN}", "***")
        assert_user_error(result, f"data: {shown} ")
        assert SECRET not in result.out + result.err
    composed = yaml.safe_load((tmp_path / "out" / "composed.yaml").read_text())
    assert composed["config"]["data"]["list"] == address
    assert yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())["data"]["list"] == shown
    assert holding(tmp_path) == []


def test_only_what_may_be_a_secret_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a name of the run, a short value, a number, a place, a part of this one (a user's name),
    a default; nor a class's name.
    """
    (tmp_path / "marie.curie").mkdir()
    monkeypatch.chdir(tmp_path / "marie.curie")
    monkeypatch.setenv("USERS_NAME", "marie.curie")
    given = {"NAME": "baseline-v2", "SHORT": "grey", "NUMBER": "20300101", "PLACE": str(tmp_path)}
    for name, value in {**given, "KEY": "standard"}.items():
        monkeypatch.setenv(name, value)
    names = ("SHORT", "NUMBER", "USERS_NAME", "KEY", "NONE,'as it is'")
    values = [f"${{oc.env:{name}}}" for name in names]
    group = {"values": values, "name": "${run_name}", "folder": "${oc.env:PLACE}/made/later"}
    group["_target_"] = "processes.standard"
    cfg = OmegaConf.create({"run_name": "${oc.env:NAME}", "data": group})
    config: Any = OmegaConf.to_container(cfg, resolve=True)
    assert config["data"]["values"] == ["grey", "20300101", "marie.curie", "standard", "as it is"]
    hidden = {**config["data"], "values": ["grey", "20300101", "marie.curie", "***", "as it is"]}
    assert redacted(config) == {**config, "data": hidden}


def test_a_stored_configuration_may_hide_any_value() -> None:
    """That of a run whose trainer.max_time comes from the environment, say."""
    check({"trainer": {"_target_": "lightning.pytorch.Trainer", "max_time": "***"}})


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://KEY:SECRET@bucket/a", "s3://***@bucket/a"),
        ("https://ghp_token@host/a", "https://***@host/a"),
        ("no https://a:b@c/d and ftp://:p@e", "no https://***@c/d and ftp://***@e"),
        ("https://host:80/a@b", "https://host:80/a@b"),
        ("ssh://git@host/a:b@c", "ssh://git@host/a:b@c"),
        ("https://${oc.env:LOGIN}@host", "https://${oc.env:LOGIN}@host"),
        ("me@host: a@b", "me@host: a@b"),
    ],
)
def test_only_logins_are_redacted(text: str, shown: str) -> None:
    assert redacted({"a": [text, 1, None]}) == {"a": [shown, 1, None]}
    assert (find_login({"a": {"b": [text]}}) == "a.b[0]") == (text != shown)

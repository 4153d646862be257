"""Words as shells and people write them: homes, empty variables, names with blanks and quotes."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from ddpm_lightning.run.config.check import settle_paths
from ddpm_lightning.run.config.errors import UserError
from ddpm_lightning.run.config.paste import command, hydra_word, path_command
from ddpm_lightning.run.config.words import refuse_mistakes, with_home
from tests.commands import Call, assert_user_error

NAMES = [
    "runs/My run (1)",
    "a=b",
    "it's",
    'say "x"',
    "a'b\"c",
    "Bücher",
    "日本",
    "2024_01_01",
    "1e5",
    "null",
    "true",
    "a,b",
    "[1]",
    "{x}",
    "a\\b",
    "ends\\",
    "a\\'b",
    " blank ",
    "#1",
    "$HOME `x` !",
    "~x",
]


def parsed(line: str) -> object:
    """What Hydra reads in the first word of a command, pasted into a shell."""
    _, _, *words = shlex.split(line)
    return OverridesParser.create().parse_override(words[0]).value()


@pytest.mark.parametrize("name", NAMES)
def test_a_printed_command_can_be_pasted(name: str) -> None:
    assert parsed(command("train.py", hydra_word("resume", name))) == name
    assert (
        os.path.normpath(str(parsed(path_command("sample.py", "checkpoint", Path(name))))) == name
    )
    echoed = subprocess.run(
        ["bash", "-c", f"printf '%s' {shlex.quote(hydra_word('resume', name))}"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert OverridesParser.create().parse_override(echoed).value() == name


def test_plain_words_stay_plain() -> None:
    assert command("train.py", hydra_word("resume", "outputs/2026-01-02_x")) == (
        "python train.py resume=outputs/2026-01-02_x"
    )


@pytest.mark.parametrize(
    ("word", "remedy"),
    [
        ("data.path=Bücher", """'data.path="Bücher"'"""),
        ("resume=My run (1)", """'resume="My run (1)"'"""),
        ("data.path=a=b", """'data.path="a=b"'"""),
        ("optimizer.lr=1e-3#", """'optimizer.lr="1e-3#"'"""),
    ],
)
def test_a_value_that_hydra_does_not_read_is_refused_with_the_word_that_it_does(
    word: str, remedy: str
) -> None:
    with pytest.raises(UserError) as caught:
        refuse_mistakes("config", [word])
    assert str(caught.value).endswith(f"quote it: {remedy}")
    refuse_mistakes("config", shlex.split(remedy))


@pytest.mark.parametrize(
    "word",
    [
        "noise.num_steps=5",
        "run_dir=a,b",
        "seed=range(0,3)",
        "data.size=[16,16]",
        "run_name=null",
        "+trainer.limits={a: 1}",
        "optimizer.lr=tag(log,interval(1e-5,1e-2))",
        "data.list=https://host/a-b.tsv",
        "data.path=???",
        'data.path="a="',
        "~callbacks.ema",
    ],
)
def test_words_that_hydra_reads_pass(word: str) -> None:
    refuse_mistakes("config", [word])


@pytest.mark.parametrize("word", ["data.path=", "outputs_dir=", "seed=", "+logger.x=", "model="])
def test_an_unset_variable_is_told(word: str) -> None:
    with pytest.raises(UserError, match="is empty; is a variable of the shell not set"):
        refuse_mistakes("config", [word])


@pytest.mark.parametrize(
    "word", ["seed=range(0,0)", "noise.num_steps=range(3,1)", "+ingest.part=range(0,0,2)"]
)
def test_a_sweep_of_nothing_is_refused(word: str) -> None:
    with pytest.raises(UserError, match="has no values"):
        refuse_mistakes("config", [word])


def test_a_home_is_found_wherever_a_shell_leaves_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert with_home("outputs_dir=~/runs") == "outputs_dir=/home/me/runs"
    assert with_home("data.path=~") == "data.path=/home/me"
    assert with_home("data.path=~/My GIFs") == "data.path=/home/me/My GIFs"
    assert with_home("data.path=~/Bücher") == 'data.path="/home/me/Bücher"'
    assert with_home("~callbacks.ema") == "~callbacks.ema"
    cfg = OmegaConf.create({
        "data": {"path": "~/a", "splits": ["x", "~/b"], "shots": "~/c"},
        "callbacks": {"samples": {"directory": "~/d"}},
        "outputs_dir": "${data.path}",
    })  # fmt: skip
    settle_paths(cfg)
    assert OmegaConf.to_container(cfg, resolve=True) == {
        "data": {"path": "/home/me/a", "splits": ["x", "/home/me/b"], "shots": "~/c"},
        "callbacks": {"samples": {"directory": "/home/me/d"}},
        "outputs_dir": "/home/me/a",
    }


@pytest.mark.slow
def test_commands_take_homes_and_refuse_empty_paths(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    result = call("sample", "checkpoint=last", "outputs_dir=~/runs")
    assert_user_error(result, f"below {tmp_path}/home/runs/")
    assert_user_error(call("export", "checkpoint="), "checkpoint= is empty")
    assert_user_error(call("train", "-m", "seed=range(0,0)"), "no values")
    assert_user_error(call("ingest", "-m", "ingest.part=range(0,0)"), "no values")
    assert not (tmp_path / "~").exists()
    assert sys.argv[0] == "ingest.py"

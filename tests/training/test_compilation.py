"""Compiling is in place, and a machine without a compiler goes on without."""

import logging

import pytest
import torch
from torch import nn

from ddpm_lightning.training import compilation
from ddpm_lightning.training.compilation import compile_in_place


def test_without_a_compiler_networks_stay_as_they_are_and_one_line_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_compiler(function: object) -> object:
        raise RuntimeError("no C++ compiler found\nand more")

    monkeypatch.setattr(torch, "compile", no_compiler)
    network = nn.Linear(2, 2)
    with caplog.at_level(logging.WARNING):
        assert not compile_in_place([network], torch.device("cpu"))
    assert [record.message for record in caplog.records] == [
        "torch.compile does not work here (no C++ compiler found); going on without"
    ]
    assert network._compiled_call_impl is None


def test_compiled_networks_keep_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilation, "_trial", lambda x: x)
    monkeypatch.setattr(torch, "compile", lambda function, *_, **__: function)
    network = nn.Linear(2, 2)
    names = list(network.state_dict())
    assert compile_in_place([network], torch.device("cpu"))
    assert list(network.state_dict()) == names
    assert network._compiled_call_impl is not None

"""What Hydra and OmegaConf keep to themselves does what its names say: an upgrade that changes it
fails here.
"""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import ConfigCompositionException
from omegaconf import OmegaConf
from omegaconf.errors import InterpolationResolutionError

from ddpm_lightning.run.config.hydra_inside import (
    apply_override,
    bounded_interpolations,
    parse_flags,
)


def test_flags_are_told_from_overrides() -> None:
    assert parse_flags(["seed=1", "~a", "-m", "--cfg", "job"]) == ["seed=1", "~a"]
    with pytest.raises(ValueError, match="unrecognized arguments: --seed=1"):
        parse_flags(["--seed=1"])
    with pytest.raises(ValueError, match="--cfg/-c: expected one argument"):
        parse_flags(["--cfg"])


def test_words_change_a_composed_configuration() -> None:
    cfg = OmegaConf.create({"a": {"b": 1, "c": "${a.b}"}})
    OmegaConf.set_struct(cfg, True)
    for override in OverridesParser.create().parse_overrides(["a.b=2", "+a.d=3", "~a.c"]):
        apply_override(override, cfg)
    assert cfg == {"a": {"b": 2, "d": 3}}
    (unknown,) = OverridesParser.create().parse_overrides(["a.x=2"])
    with pytest.raises(ConfigCompositionException, match=r"Could not override 'a\.x'"):
        apply_override(unknown, cfg)


def test_interpolations_are_counted_before_they_are_too_many() -> None:
    """Twenty that double have 2^20 characters."""
    doubled = {f"k{i + 1}": f"${{k{i}}}${{k{i}}}" for i in range(20)}
    with (
        bounded_interpolations(2**19),
        pytest.raises(InterpolationResolutionError, match="name each other too often"),
    ):
        OmegaConf.to_container(OmegaConf.create({"k0": "x", **doubled}), resolve=True)
    plain = OmegaConf.create({"a": "x", "b": "${a}${a}"})
    with bounded_interpolations(2**19):
        assert OmegaConf.to_container(plain, resolve=True) == {"a": "x", "b": "xx"}

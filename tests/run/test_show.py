"""python show.py FILM: each film is drawn, by the words that its help page names."""

from pathlib import Path

import pytest

from ddpm_lightning.data.gif import decode
from tests.commands import Call, assert_user_error

GIFS = ["data=gif_folder", "data.path=gifs", "data.size=8", "data.num_frames=2"]
TINY = {
    "forward": [*GIFS, "model=median", "noise=hybrid", "noise.num_steps=20", "num_images=2"],
    "brownian": ["num_particles=20", "num_images=2"],
    "walk": ["noise.num_steps=20", "samplers=[ddim,pair]", "evaluations=2", "num_points=20"],
    "score": ["model=median", "log_snrs=[0,-1]"],
    "schedule": [
        "chains=[median]",
        "schedules=[linear]",
        "noise.num_steps=20",
        "output=outputs/films/mine.png",
    ],
    "bound": ["chains=[median]", "noise=linear", "noise.num_steps=20", "num_points=20"],
}
MISTAKES = {
    "no film": (["forwrad"], ["film/forwrad", "did you mean film=forward?"]),
    "no chain": (["forward", "chains=[medain]"], ["model/medain", "did you mean model=median?"]),
    "no sampler": (["walk", "samplers=[foo]"], ["sampler/foo", "choose ancestral"]),
    "no sampler at all": (["walk", "samplers=[]"], ["film.samplers=[]", "at least 1 item"]),
    "no chain at all": (["forward", "chains=[]"], ["film.chains=[]", "at least 1 item"]),
    "no level": (["score", "log_snrs=[]"], ["film.log_snrs=[]", "at least 1 item"]),
    "no way": (["brownian", "diffusivity=0"], ["film.diffusivity=0", "greater than 0"]),
    "no list": (["walk", "samplers=ddim"], ["film.samplers='ddim'", "valid list"]),
    "another kind of file": (["score", "output=a.gif"], ["output=a.gif", "ends in .png"]),
    "no folder": (["forward", "data=gif_folder"], ["data.path must be given"]),
    "an empty folder": (["forward", "data=gif_folder", "data.path=none"], ["data.path=none"]),
    "too few steps": (["walk", "noise.num_steps=5", "evaluations=9"], ["ask for fewer"]),
}


# tests/films draw all of them; by the command the others are for make test-long.
OFTEN = ("forward", "schedule")


@pytest.mark.slow
@pytest.mark.draws
@pytest.mark.parametrize(
    "name", [n if n in OFTEN else pytest.param(n, marks=pytest.mark.long) for n in TINY]
)
def test_every_film_is_drawn_where_it_says(name: str, call: Call, tmp_path: Path) -> None:
    result = call("show", name, *TINY[name])
    assert result.code == 0, result.err
    (path,) = (tmp_path / "outputs" / "films").iterdir()
    assert f"outputs/films/{path.name}" in result.out
    data = path.read_bytes()
    if path.suffix == ".gif":
        assert len(decode(data).frames) > 2
    else:
        assert data.startswith(b"\x89PNG")


# One of each function that refuses; the others are for make test-long.
FIRST = ("no film", "no list", "another kind of file", "too few steps")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [n if n in FIRST else pytest.param(n, marks=pytest.mark.long) for n in MISTAKES]
)
def test_a_mistake_is_one_line(name: str, call: Call) -> None:
    words, parts = MISTAKES[name]
    assert_user_error(call("show", *words), *parts)

"""python show.py FILM: diffusion in pictures, without a trained network."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from hydra import compose
from hydra.utils import instantiate

from ddpm_lightning.files.atomic import write_file
from ddpm_lightning.films.base import Film
from ddpm_lightning.run.config.build import sampler_node
from ddpm_lightning.run.config.check import OPTIONS, Node, check, check_options, resolved
from ddpm_lightning.run.config.errors import UserError, user_errors
from ddpm_lightning.run.config.job import Job
from ddpm_lightning.run.config.words import options


def show(job: Job) -> None:
    """Draw a film, and print where it is."""
    start = time.perf_counter()
    config = resolved(job.cfg)
    del config["model"]  # of which films take the process alone
    name = str(job.choices["film"])
    config["film"] = _with_nodes(config["film"], job)
    check(config)
    with user_errors("film"):
        film: Film = instantiate(config["film"], _convert_="all")
    output = Path(config["output"] or Path(config["outputs_dir"], "films", name + film.suffix))
    if output.suffix != film.suffix:
        raise UserError(f"output={output}: {name} needs a name that ends in {film.suffix}")
    with user_errors("film"):
        picture = film.draw()
    with user_errors("output"):
        output.parent.mkdir(parents=True, exist_ok=True)
        data = picture.encode()
        write_file(output, [data], len(data))
    print(
        f"{name}: {len(picture.images)} images, {len(data) / 1e6:.2f} MB, in "
        f"{time.perf_counter() - start:.1f} s\n  film           {output}"
    )


def _with_nodes(film: Node, job: Job) -> Node:
    """Return a film's node with nodes in the place of names of options."""
    check_options("film", {key: film[key] for key in OPTIONS["film"] & film.keys()})
    if "samplers" in film:
        nodes = {name: _partial(sampler_node(name), "num_evaluations") for name in film["samplers"]}
        return film | {"samplers": nodes}
    words, model, noise = job.words, str(job.choices["model"]), str(job.choices["noise"])
    if "schedules" in film:
        chains = film["chains"] or options("model")
        schedules = film["schedules"] or options("noise")
        return film | {
            "chains": {
                chain: _partial(_process(words, chain, noise), "schedule") for chain in chains
            },
            "schedules": {name: _composed(words, f"noise={name}")["noise"] for name in schedules},
        }
    if "chains" in film:
        other = "median" if model == "standard" else "standard"
        pairs = [chain.partition("/")[::2] for chain in film["chains"] or (model, other)]
        named = [(chain, schedule or noise) for chain, schedule in pairs]
        return film | {
            "chains": {
                f"{chain} chain, {schedule} noise": _process(words, chain, schedule)
                for chain, schedule in named
            }
        }
    return film


def _process(words: Sequence[str], model: str, noise: str) -> Node:
    denoiser = _composed(words, f"model={model}", f"noise={noise}")["model"]["denoiser"]
    return cast(Node, denoiser["process"])


def _partial(node: Node, last: str) -> Node:
    """Return the node of what constructs an object from its last argument."""
    return {key: value for key, value in node.items() if key != last} | {"_partial_": True}


def _composed(words: Sequence[str], *more: str) -> Node:
    return resolved(compose("show", [*words, *more]))

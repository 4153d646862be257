"""python inspect_data.py: an HTML page about stored clips, with nothing to serve or to download."""

from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig

from ddpm_lightning.data.clips.base import ClipData
from ddpm_lightning.plots.data_page import data_page
from ddpm_lightning.run.config.check import check, resolved
from ddpm_lightning.run.config.errors import user_errors


def inspect_data(cfg: DictConfig) -> None:
    """Writes the page and prints where it is."""
    config = resolved(cfg)
    node = config["data"]
    node |= {"frozen": True} if "frozen" in node else {}  # looking fetches nothing
    check(config)
    with user_errors("data"):
        data: ClipData = instantiate(node, _convert_="all")
        store = data.open_store()
        if config["verify"]:
            store.verify()
        page = data_page(store, ", ".join(store.sources), config["num_samples"], config["seed"])
    with user_errors("output"):
        output = Path(config["output"])
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(page, encoding="utf-8")
    print(f"{store.summary()}\n  page           {output}")

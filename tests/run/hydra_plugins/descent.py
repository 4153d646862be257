"""A sweeper of somebody else: it tries two learning rates, then a third on the better side."""

from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper


class Descent(Sweeper):
    def setup(self, **context: Any) -> None:
        self.launcher = Plugins.instance().instantiate_launcher(**context)

    def sweep(self, arguments: list[str]) -> None:
        first, second = (self.evaluate(arguments, i, lr) for i, lr in enumerate((1e-3, 1e-2)))
        self.evaluate(arguments, 2, 1e-4 if first < second else 1e-1)

    def evaluate(self, arguments: list[str], number: int, lr: float) -> float:
        assert self.launcher is not None
        (job,) = self.launcher.launch([[*arguments, f"optimizer.lr={lr}"]], initial_job_idx=number)
        return float(job.return_value)


node = {"_target_": f"{__name__}.Descent"}
ConfigStore.instance().store(group="hydra/sweeper", name="descent", node=node)

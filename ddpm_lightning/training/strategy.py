"""How the ranks of a run share their gradients: by a collective for each bucket, and no other."""

from lightning.pytorch.strategies import DDPStrategy, StrategyRegistry
from torch.nn.parallel import DistributedDataParallel


class StaticDDP(DDPStrategy):
    """DDP whose gradients are views of its buckets, under a graph that is the same in each step.

    Every step reaches all parameters: conditions that are dropped are encoded as well. Where
    batches accumulate, the graph is not declared static: without collectives in the first batch,
    torch (2.11 to 2.15) never begins with them. Buffers are broadcast once, at the start: they stay
    what they are.
    """

    def configure_ddp(self) -> None:
        assert self.lightning_module is not None
        is_static = self.lightning_module.trainer.accumulate_grad_batches == 1
        own = {"gradient_as_bucket_view": True, "static_graph": is_static}
        self._ddp_kwargs = own | self._ddp_kwargs
        super().configure_ddp()
        assert isinstance(self.model, DistributedDataParallel)
        self.model.broadcast_buffers = False


def register() -> None:
    """Make it what Lightning takes for strategy=ddp, and for auto with several devices."""
    StrategyRegistry.register("ddp", StaticDDP, override=True)

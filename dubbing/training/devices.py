"""One process per device: how the training commands start and what their processes share."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from torch import Tensor, nn

from dubbing.training.options import GeometryTrainOptions, RendererTrainOptions

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def launched(options: GeometryTrainOptions | RendererTrainOptions) -> Fabric:
    """Start one process per device and seed each of them differently."""
    from lightning_fabric import Fabric
    from lightning_fabric.strategies.ddp import DDPStrategy

    # the speech encoder gets gradients in the last steps only, the discriminators join late
    strategy = DDPStrategy(find_unused_parameters=True) if options.devices > 1 else "auto"
    fabric = Fabric(
        accelerator=options.device,
        strategy=strategy,
        devices=options.devices,
        precision=options.precision,  # type: ignore[arg-type]  # checked by the options
    )
    fabric.launch()
    fabric.seed_everything(options.seed + fabric.global_rank)
    return fabric


def average_gradients(fabric: Fabric, network: nn.Module) -> None:
    """Mean over all processes of gradients that did not pass through the wrapper's forward."""
    if fabric.world_size == 1:
        return
    for parameter in network.parameters():
        if parameter.grad is not None:
            parameter.grad = cast(Tensor, fabric.all_reduce(parameter.grad, reduce_op="mean"))

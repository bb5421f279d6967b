"""Two models Zeus trains that transformers does not hold, as torch modules on the meta device."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from eopt.costmodel.datasets.traced import BATCH

if TYPE_CHECKING:
    from eopt.ir.model import Model

USERS, ITEMS, FACTORS = 6040, 3706, 32  # of MovieLens-1M; factors of NeuMF as its authors' code has them
STAGES = ((116, 4), (232, 8), (464, 4))  # channels and units of ShuffleNet v2 1x (Ma et al., ECCV 2018, table 5)


def shufflenet() -> Model:
    """ShuffleNet v2 1x on pictures of 32 x 32 of 100 classes, which does not shrink them before its stages."""
    import torch

    nn = torch.nn

    def block(read: int, made: int, size: int, stride: int = 1, group: int = 1, active: bool = True) -> Any:
        conv = nn.Conv2d(read, made, size, stride, size // 2, groups=group)
        return nn.Sequential(conv, nn.BatchNorm2d(made), *([nn.ReLU()] if active else []))

    class Unit(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self, read: int, made: int, stride: int) -> None:
            super().__init__()
            half, taken = made // 2, read if stride == 2 else read // 2
            deep = block(half, half, 3, stride, half, active=False)
            self.main = nn.Sequential(block(taken, half, 1), deep, block(half, half, 1))
            self.side = None
            if stride == 2:
                self.side = nn.Sequential(block(read, read, 3, 2, read, active=False), block(read, half, 1))

        def forward(self, x: Any) -> Any:
            kept, worked = (x, x) if self.side else x.chunk(2, 1)
            joined = torch.cat([self.side(kept) if self.side else kept, self.main(worked)], 1)
            n, channels, height, width = joined.shape
            return joined.view(n, 2, channels // 2, height, width).transpose(1, 2).reshape(n, channels, height, width)

    with torch.device("meta"):
        layers, read = [block(3, 24, 3)], 24
        for made, units in STAGES:
            layers += [Unit(read, made, 2), *(Unit(made, made, 1) for _ in range(units - 1))]
            read = made
        pooled = nn.Sequential(block(read, 1024, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1024, 100))
        return _recorded(nn.Sequential(*layers, pooled), {"input": torch.empty(BATCH, 3, 32, 32)})


def neumf() -> Model:
    """Neural matrix factorisation (He et al., WWW 2017): a product of embeddings beside three layers over others."""
    import torch

    nn, wide = torch.nn, 4 * FACTORS

    class NeuMF(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.user, self.item = nn.Embedding(USERS, FACTORS), nn.Embedding(ITEMS, FACTORS)
            self.deep_user, self.deep_item = nn.Embedding(USERS, wide), nn.Embedding(ITEMS, wide)
            sizes = (2 * wide, wide, wide // 2, wide // 4)
            linear = [nn.Linear(read, made) for read, made in pairwise(sizes)]
            self.layers = nn.Sequential(*(layer for each in linear for layer in (each, nn.ReLU())))
            self.predict = nn.Linear(2 * FACTORS, 1)

        def forward(self, user: Any, item: Any) -> Any:
            deep = self.layers(torch.cat([self.deep_user(user), self.deep_item(item)], 1))
            return self.predict(torch.cat([self.user(user) * self.item(item), deep], 1))

    with torch.device("meta"):
        places = {name: torch.empty(BATCH, dtype=torch.long) for name in ("user", "item")}
        return _recorded(NeuMF(), places)


def _recorded(module: Any, inputs: dict[str, Any]) -> Model:
    import torch

    from eopt.ir.trace.recorder import Recorder

    recorder = Recorder(torch, module.eval(), inputs)
    with recorder.recording():
        result = module(*inputs.values())
    return recorder.model({"result": result})

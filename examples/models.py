"""The two example networks, for images of 1x64x64 and ten classes."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class SeparableConv(nn.Module):
    """Depthwise 3x3 then pointwise convolution (Howard et al. 2017), each with batch normalisation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.depthwise_norm = nn.BatchNorm2d(channels)
        self.pointwise = nn.Conv2d(channels, channels, 1, bias=False)
        self.pointwise_norm = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.depthwise_norm(self.depthwise(x)))
        return self.pointwise_norm(self.pointwise(x))


class ResidualBlock(nn.Module):
    """Two separable convolutions around a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = SeparableConv(channels)
        self.second = SeparableConv(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(x + self.second(F.relu(self.first(x))))


class ConvNormRelu(nn.Sequential):
    """Full 3x3 convolution, batch normalisation, ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
        )


class ResidualCnn(nn.Module):
    """27 convolutions in three stages: 64 channels at 64x64, 96 at 32x32, 128 at 16x16; global average pool."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.stem = ConvNormRelu(1, 64, stride=1)
        self.stage1 = nn.Sequential(ResidualBlock(64), ResidualBlock(64))
        self.down1 = ConvNormRelu(64, 96, stride=2)
        self.stage2 = nn.Sequential(ResidualBlock(96), ResidualBlock(96))
        self.down2 = ConvNormRelu(96, 128, stride=2)
        self.stage3 = nn.Sequential(ResidualBlock(128), ResidualBlock(128))
        self.head = nn.Linear(128, classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.stage1(self.stem(image))
        x = self.stage2(self.down1(x))
        x = self.stage3(self.down2(x))
        return self.head(x.mean(dim=(2, 3)))


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = (self._split(part) for part in self.qkv(x).chunk(3, dim=-1))
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.project(mixed.transpose(1, 2).flatten(2))

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class Mlp(nn.Sequential):
    """Two linear layers around the exact GELU."""

    def __init__(self, width: int) -> None:
        super().__init__(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))


class EncoderBlock(nn.Module):
    """Pre-norm transformer block (Xiong et al. 2020)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = Mlp(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.attention_norm(x))
        return x + self.mlp(self.mlp_norm(x))


def waves(side: int, width: int) -> torch.Tensor:
    """Sines and cosines of row and column on a square grid (Vaswani et al. 2017): float32[side * side, width]."""
    angles = torch.outer(torch.arange(side), 100.0 ** -torch.linspace(0, 1, width // 4))
    line = torch.cat((angles.sin(), angles.cos()), dim=1)
    return torch.cat((line.repeat_interleave(side, 0), line.repeat(side, 1)), dim=1) / 2


class VisionTransformer(nn.Module):
    """Patches of 4x4 as 256 tokens of width 160, five blocks, mean over tokens.

    While training it sees a random quarter of the patches (PatchDropout, Liu et al. 2022): the rest is redundant here,
    and an epoch takes a quarter of the time.
    """

    def __init__(self, classes: int = 10, width: int = 160, depth: int = 5, heads: int = 5, patch: int = 4) -> None:
        super().__init__()
        self.patches = (64 // patch) ** 2
        self.embed = nn.Conv2d(1, width, patch, stride=patch)
        self.position = nn.Parameter(waves(64 // patch, width))
        self.blocks = nn.Sequential(*(EncoderBlock(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.embed(image).flatten(2).transpose(1, 2) + self.position
        if self.training:
            x = x[:, torch.randperm(self.patches)[: self.patches // 4]]
        return self.head(self.norm(self.blocks(x)).mean(dim=1))

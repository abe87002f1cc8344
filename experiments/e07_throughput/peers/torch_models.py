"""The benchmark's models in torch, layer for layer as in jaxfair, with per-example losses."""

import itertools
import math

import torch
from torch import nn
from torch.nn import functional as F


def norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(32, channels), channels)


class FeatureAutoencoder(nn.Module):
    """As jaxfair.models.autoencoder.FeatureAutoencoder, on features (b, 256, 32, 32)."""

    def __init__(self, widths: tuple[int, ...] = (100, 150, 200, 300), channels: int = 256):
        super().__init__()
        layers: list[nn.Module] = []
        for before, width in zip((channels, *widths[:-1]), widths, strict=True):
            layers += [nn.Conv2d(before, width, 5, 2, 2, bias=False), *self._after(width)]
        layers.append(nn.Conv2d(widths[-1], widths[-1], 5, 1, 2, bias=False))
        up = (*widths[::-1], channels)
        for before, width in itertools.pairwise(up):
            layers += [nn.ConvTranspose2d(before, width, 6, 2, 2, bias=False), *self._after(width)]
        layers.append(nn.Conv2d(channels, channels, 1, bias=False))
        self.layers = nn.Sequential(*layers)

    def _after(self, width: int) -> list[nn.Module]:
        return [norm(width), nn.LeakyReLU(0.01), nn.Dropout2d(0.1)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class BasicBlock(nn.Module):
    def __init__(self, before: int, width: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, stride, 1, bias=False)
        self.norm1 = norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norm2 = norm(width)
        self.skip = nn.Sequential()
        if stride > 1 or before != width:
            skip = nn.Conv2d(before, width, 1, stride, bias=False)
            self.skip = nn.Sequential(skip, norm(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.mish(self.norm1(self.conv1(x)))
        return F.mish(self.norm2(self.conv2(y)) + self.skip(x))


class ResNet(nn.Module):
    """As jaxfair's residual networks with Mish and one grey channel repeated to three."""

    def __init__(self, blocks: tuple[int, ...] = (1, 1, 1, 1), labels: int = 8):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 7, 2, 3, bias=False), norm(64), nn.Mish(), nn.MaxPool2d(3, 2, 1)
        )
        stages, before = [], 64
        for stage, count in enumerate(blocks):
            for i in range(count):
                width = 64 * 2**stage
                stages.append(BasicBlock(before, width, 2 if stage and not i else 1))
                before = width
        self.stages, self.head = nn.Sequential(*stages), nn.Linear(before, labels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.stages(self.stem(x)).mean((2, 3)))


class PerExample:
    """A criterion in torch's manner: `reduction` is "none" for (b,) losses, or "sum".

    `taps` is what it holds; the worker moves it to the model's device.
    """

    reduction = "sum"
    taps = torch.zeros(0)

    def __call__(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        losses = self.losses(output, target)
        return losses if self.reduction == "none" else losses.sum()

    def losses(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


class Labels(PerExample):
    def losses(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return F.binary_cross_entropy_with_logits(output, target, reduction="none").mean(1)


class Dissimilarity(PerExample):
    """1 - SSIM, 5x5 Gaussian window of sigma 1.5, zero padding, averaged per example."""

    def __init__(self) -> None:
        taps = torch.exp(-(torch.arange(-2.0, 3.0) ** 2) / (2 * 1.5**2))
        self.taps = taps / taps.sum()

    def blur(self, x: torch.Tensor) -> torch.Tensor:
        c = x.shape[1]
        row = self.taps.view(1, 1, 1, 5).expand(c, 1, 1, 5)
        x = F.conv2d(x, row, padding=(0, 2), groups=c)
        return F.conv2d(x, row.transpose(2, 3), padding=(2, 0), groups=c)

    def losses(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        mean_x, mean_y = self.blur(output), self.blur(target)
        var_x = self.blur(output**2) - mean_x**2
        var_y = self.blur(target**2) - mean_y**2
        cov = self.blur(output * target) - mean_x * mean_y
        top = (2 * mean_x * mean_y + 1e-4) * (2 * cov + 9e-4)
        bottom = (mean_x**2 + mean_y**2 + 1e-4) * (var_x + var_y + 9e-4)
        return 1 - (top / bottom).mean((1, 2, 3))


def make(work: str, rows: int) -> tuple[nn.Module, PerExample, torch.Tensor, torch.Tensor]:
    """Returns (model, criterion, input, target) of a work of configs/throughput.py."""
    torch.manual_seed(0)
    if work == "fae":
        features = torch.relu(torch.randn(rows, 256, 32, 32))
        return FeatureAutoencoder(), Dissimilarity(), features, features
    blocks = {"resnet9": (1, 1, 1, 1), "resnet18": (2, 2, 2, 2)}[work.split("_")[0]]
    side = int(work.split("_")[1])
    images = torch.rand(rows, 1, side, side).expand(-1, 3, -1, -1).contiguous()
    return ResNet(blocks), Labels(), images, (torch.rand(rows, 8) < 0.5).float()

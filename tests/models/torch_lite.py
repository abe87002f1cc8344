"""EfficientNet-Lite once more, in torch: names as in the published files, paddings by hand."""

import math

from tests.models.torch_nets import F, nn, torch

BLOCKS = (  # repeats, kernel, stride, expand, in, out: EfficientNet-B0's
    (1, 3, 1, 1, 32, 16), (2, 3, 2, 6, 16, 24), (2, 5, 2, 6, 24, 40), (3, 3, 2, 6, 40, 80),
    (3, 5, 1, 6, 80, 112), (4, 5, 2, 6, 112, 192), (1, 3, 1, 6, 192, 320),
)  # fmt: skip


def scaled(filters, width):
    """round_filters of the TensorFlow code, divisor 8."""
    filters *= width
    new = max(8, int(filters + 8 / 2) // 8 * 8)
    if new < 0.9 * filters:
        new += 8
    return int(new)


def same(x, kernel, stride):
    """TensorFlow's "same": the larger part of an odd padding at the bottom and the right."""
    for axis in (-1, -2):
        size = x.shape[axis]
        total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
        before, after = total // 2, total - total // 2
        x = F.pad(x, (before, after, 0, 0) if axis == -1 else (0, 0, before, after))
    return x


class Block(nn.Module):
    def __init__(self, c_in, c_out, kernel, stride, expand):
        super().__init__()
        wide = c_in * expand
        self.kernel, self.stride, self.expand = kernel, stride, expand
        self.skips = stride == 1 and c_in == c_out
        if expand != 1:
            self._expand_conv = nn.Conv2d(c_in, wide, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(wide, eps=1e-3)
        self._depthwise_conv = nn.Conv2d(wide, wide, kernel, stride, groups=wide, bias=False)
        self._bn1 = nn.BatchNorm2d(wide, eps=1e-3)
        self._project_conv = nn.Conv2d(wide, c_out, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(c_out, eps=1e-3)

    def forward(self, x):
        y = x
        if self.expand != 1:
            y = F.relu6(self._bn0(self._expand_conv(y)))
        y = F.relu6(self._bn1(self._depthwise_conv(same(y, self.kernel, self.stride))))
        y = self._bn2(self._project_conv(y))
        return x + y if self.skips else y


class Lite(nn.Module):
    """Images in [0, 1] -> pooled features."""

    def __init__(self, width, depth):
        super().__init__()
        self._conv_stem = nn.Conv2d(3, 32, 3, 2, bias=False)
        self._bn0 = nn.BatchNorm2d(32, eps=1e-3)
        blocks, c_in = [], 32
        for place, (repeats, kernel, stride, expand, _, c_out) in enumerate(BLOCKS):
            ends = place in (0, len(BLOCKS) - 1)
            repeats = repeats if ends else math.ceil(depth * repeats)
            for i in range(repeats):
                c = scaled(c_out, width)
                blocks.append(Block(c_in, c, kernel, stride if i == 0 else 1, expand))
                c_in = c
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = nn.Conv2d(c_in, 1280, 1, bias=False)
        self._bn1 = nn.BatchNorm2d(1280, eps=1e-3)

    def forward(self, x):
        x = (x - 127 / 255) / (128 / 255)
        x = F.relu6(self._bn0(self._conv_stem(same(x, 3, 2))))
        for block in self._blocks:
            x = block(x)
        return F.relu6(self._bn1(self._conv_head(x))).mean((2, 3))


def saved(path, width=1.0, depth=1.0, seed=0):
    """Writes a Lite whose maps stay alive; returns it. Stored statistics are those of noise."""
    g = torch.Generator().manual_seed(seed)
    net = Lite(width, depth)
    for name, value in net.state_dict().items():
        if value.ndim > 1:
            value.copy_(torch.randn(value.shape, generator=g) * (2 / value[0].numel()) ** 0.5)
        elif value.is_floating_point() and "running" not in name:
            noise = torch.randn(value.shape, generator=g)
            value.copy_(name.endswith("weight") + 0.3 * noise)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the plain mean of what it has seen
    with torch.no_grad():
        net.train()(torch.rand(8, 3, 64, 64, generator=g))
    torch.save(net.eval().state_dict(), path)
    return net

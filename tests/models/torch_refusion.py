"""FCRO's and FairREAD's networks once more, in torch, written from the papers and their codes."""

from tests.models.torch_nets import DenseNet121, F, nn, torch

__all__ = ["AttributeEncoder", "EmbeddingNet", "FairRead", "MapAdversary", "MapBlock"]


class AttributeEncoder(nn.Module):
    def __init__(self, attributes, width):
        super().__init__()
        self.code = nn.Linear(attributes, 128)
        self.shift, self.scale = nn.Linear(128, width), nn.Linear(128, width)

    def forward(self, a):
        h = F.relu(self.code(a))
        return self.shift(h), self.scale(h)


class _Bottleneck(nn.Module):
    def __init__(self, c, norm):
        super().__init__()
        n = c // 8
        self.conv1, self.norm1 = nn.Conv2d(c, n, 1, bias=False), norm(n)
        self.conv2, self.norm2 = nn.Conv2d(n, n, 3, padding=1, bias=False), norm(n)
        self.conv3, self.norm3 = nn.Conv2d(n, c, 1, bias=False), norm(c)

    def narrowed(self, x):
        x = self.norm1(self.conv1(x))
        x = self.norm2(self.conv2(x))
        return torch.relu(self.norm3(self.conv3(x)))


class MapBlock(_Bottleneck):
    def __init__(self, c, width, norm):
        super().__init__(c, norm)
        self.squeeze, self.excite = nn.Linear(c, width), nn.Linear(width, c)

    def forward(self, x, shift, scale):
        pooled = F.adaptive_avg_pool2d(x, 1).flatten(1)
        fused = scale * F.relu(self.squeeze(pooled)) + shift
        weight = F.relu(self.excite(fused))
        return self.narrowed(x * weight[:, :, None, None])


class MapAdversary(_Bottleneck):
    def __init__(self, c, attributes, norm):
        super().__init__(c, norm)
        self.guess = nn.Linear(c, attributes)

    def forward(self, x):
        return self.guess(self.narrowed(x).mean(dim=(2, 3)))


class FairRead(nn.Module):
    """What comes after the maps; `encoder` is beside it, as in the publication's count."""

    def __init__(self, c, width, blocks, attributes, norm):
        super().__init__()
        self.attributes = AttributeEncoder(attributes, width)
        self.block = nn.ModuleList(MapBlock(c, width, norm) for _ in range(blocks))
        self.head = nn.Linear(c, 1)
        self.adversary = MapAdversary(c, attributes, norm)

    def forward(self, x, a):
        shift, scale = self.attributes(a)
        for block in self.block:
            x = block(x, shift, scale)
        return self.head(x.mean(dim=(2, 3)))


class EmbeddingNet(nn.Module):
    """FCRO's phi: DenseNet-121, 128 numbers of unit length, logits."""

    def __init__(self, outputs):
        super().__init__()
        self.backbone = DenseNet121(nn.BatchNorm2d)
        self.projection, self.classifier = nn.Linear(1024, 128), nn.Linear(128, outputs)

    def forward(self, x):
        return self.classifier(F.normalize(self.projection(self.backbone(x)), dim=1))

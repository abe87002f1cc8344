"""The networks once more, in torch, written from the specification: the tests' second opinion."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is the oracle of the parity tests")
nn, F = torch.nn, torch.nn.functional


def to_torch(x):
    """(b, *spatial, c) numpy or jax -> (b, c, *spatial) torch."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(np.asarray(x), -1, 1)))


def from_torch(x):
    """(b, c, *spatial) torch -> (b, *spatial, c) numpy."""
    return np.moveaxis(x.detach().numpy(), 1, -1)


def randomise(net, seed=0):
    """Fills every parameter and running statistic with values that show mistakes."""
    g = torch.Generator().manual_seed(seed)
    for name, value in net.state_dict().items():
        if name.endswith("running_var"):
            value.copy_(torch.rand(value.shape, generator=g) + 0.5)
        elif value.ndim > 1:
            spread = (2 / value[0].numel()) ** 0.5
            value.copy_(torch.randn(value.shape, generator=g) * spread)
        elif value.is_floating_point():
            near_one = name.endswith("weight")
            value.copy_(near_one + 0.3 * torch.randn(value.shape, generator=g))
    return net.eval()


class BasicBlock(nn.Module):
    conv = nn.Conv2d

    def __init__(self, c_in, c, stride, norm, act=F.relu):
        super().__init__()
        self.conv1, self.bn1 = self.conv(c_in, c, 3, stride, 1, bias=False), norm(c)
        self.conv2, self.bn2 = self.conv(c, c, 3, 1, 1, bias=False), norm(c)
        self.downsample, self.act = None, act
        if stride != 1 or c_in != c:
            self.downsample = nn.Sequential(self.conv(c_in, c, 1, stride, bias=False), norm(c))

    def forward(self, x):
        y = self.bn2(self.conv2(self.act(self.bn1(self.conv1(x)))))
        return self.act(y + (x if self.downsample is None else self.downsample(x)))


class BasicBlock3d(BasicBlock):
    conv = nn.Conv3d


class Extractor(nn.Module):
    """ResNet-18's layer0, layer1, layer2, joined at a quarter of the image's size."""

    def __init__(self):
        super().__init__()
        norm = nn.BatchNorm2d
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), norm(64)
        self.layer1 = nn.Sequential(BasicBlock(64, 64, 1, norm), BasicBlock(64, 64, 1, norm))
        self.layer2 = nn.Sequential(BasicBlock(64, 128, 2, norm), BasicBlock(128, 128, 1, norm))

    def forward(self, x):
        maps = [F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)]
        maps.append(self.layer1(maps[-1]))
        maps.append(self.layer2(maps[-1]))
        size = (x.shape[2] // 4, x.shape[3] // 4)
        resized = [F.interpolate(m, size, mode="bilinear", align_corners=True) for m in maps]
        return torch.cat(resized, 1)


class Autoencoder(nn.Module):
    """The feature autoencoder with GroupNorm by gcd, dropout left out."""

    def __init__(self, dims, channels=256):
        super().__init__()
        norm = group_norm
        steps, widths = [], (channels, *dims)
        for a, b in zip(widths, dims):
            steps += [nn.Conv2d(a, b, 5, 2, 2, bias=False), norm(b), nn.LeakyReLU(0.01)]
        steps += [nn.Conv2d(dims[-1], dims[-1], 5, 1, 2, bias=False)]
        for a, b in zip(dims[::-1], (*dims[-2::-1], channels)):
            steps += [nn.ConvTranspose2d(a, b, 6, 2, 2, bias=False), norm(b), nn.LeakyReLU(0.01)]
        self.net = nn.Sequential(*steps, nn.Conv2d(channels, channels, 1, bias=False))

    def forward(self, x):
        return self.net(x)

    def load(self, params, dims):
        """Copies our parameters in; upsampling kernels come from `transposed_weight`."""
        names = [n for i in range(len(dims)) for n in (f"down{i}", f"down{i}_norm")]
        names += ["bottleneck"]
        names += [n for i in range(len(dims)) for n in (f"up{i}", f"up{i}_norm")] + ["out"]
        modules = [m for m in self.net if not isinstance(m, nn.LeakyReLU)]
        with torch.no_grad():
            for name, module in zip(names, modules, strict=True):
                if isinstance(module, nn.GroupNorm):
                    module.weight.copy_(torch.tensor(np.asarray(params[name]["scale"])))
                    module.bias.copy_(torch.tensor(np.asarray(params[name]["bias"])))
                elif isinstance(module, nn.ConvTranspose2d):
                    module.weight.copy_(transposed_weight(params[name]["kernel"]))
                else:
                    kernel = np.moveaxis(np.asarray(params[name]["kernel"]), (-2, -1), (1, 0))
                    module.weight.copy_(torch.tensor(kernel))
        return self


def transposed_weight(kernel):
    """Undoes phases_from_transposed: (3, 3, c_in, 4 c_out) -> (c_in, c_out, 6, 6)."""
    k = np.asarray(kernel)
    c_in, c_out = k.shape[2], k.shape[3] // 4
    weight = np.zeros((c_in, c_out, 6, 6), np.float32)
    phases = k.reshape(3, 3, c_in, 2, 2, c_out)
    for ty, tx, ry, rx in np.ndindex(3, 3, 2, 2):
        weight[:, :, 2 * (2 - ty) + ry, 2 * (2 - tx) + rx] = phases[ty, tx, :, ry, rx]
    return torch.from_numpy(weight)


def ssim(x, y):
    """SSIM per channel with a depthwise 5x5 Gaussian window, sigma 1.5, zero padding."""
    g = torch.exp(-((torch.arange(5.0) - 2) ** 2) / (2 * 1.5**2))
    g = g / g.sum()
    window = (g[:, None] * g[None, :]).expand(x.shape[1], 1, 5, 5)
    blur = lambda t: F.conv2d(t, window.to(t), padding=2, groups=t.shape[1])
    mx, my = blur(x), blur(y)
    vx, vy, vxy = blur(x * x) - mx**2, blur(y * y) - my**2, blur(x * y) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    return ((2 * mx * my + c1) * (2 * vxy + c2)) / ((mx**2 + my**2 + c1) * (vx + vy + c2))


class Bottleneck(nn.Module):
    def __init__(self, c_in, c, stride, norm, act=F.relu):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(c_in, c, 1, bias=False), norm(c)
        self.conv2, self.bn2 = nn.Conv2d(c, c, 3, stride, 1, bias=False), norm(c)
        self.conv3, self.bn3 = nn.Conv2d(c, 4 * c, 1, bias=False), norm(4 * c)
        self.downsample, self.act = None, act
        if stride != 1 or c_in != 4 * c:
            skip = nn.Conv2d(c_in, 4 * c, 1, stride, bias=False)
            self.downsample = nn.Sequential(skip, norm(4 * c))

    def forward(self, x):
        y = self.act(self.bn2(self.conv2(self.act(self.bn1(self.conv1(x))))))
        y = self.bn3(self.conv3(y))
        return self.act(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """torchvision's ResNet up to the pooled features, in three dimensions with BasicBlock3d."""

    def __init__(self, block, counts, norm, act=F.relu, channels=3):
        super().__init__()
        conv = nn.Conv3d if block is BasicBlock3d else nn.Conv2d
        self.conv1, self.bn1 = conv(channels, 64, 7, 2, 3, bias=False), norm(64)
        self.act, c_in = act, 64
        wide = 4 if block is Bottleneck else 1
        for stage, count in enumerate(counts):
            blocks = []
            for i in range(count):
                stride = 2 if stage > 0 and i == 0 else 1
                blocks.append(block(c_in, 64 * 2**stage, stride, norm, act))
                c_in = 64 * 2**stage * wide
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))

    def forward(self, x):
        pool = F.max_pool3d if x.ndim == 5 else F.max_pool2d
        x = pool(self.act(self.bn1(self.conv1(x))), 3, 2, 1)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
        return x.flatten(2).mean(2)


class _DenseLayer(nn.Module):
    def __init__(self, c_in, norm):
        super().__init__()
        self.norm1, self.conv1 = norm(c_in), nn.Conv2d(c_in, 128, 1, bias=False)
        self.norm2, self.conv2 = norm(128), nn.Conv2d(128, 32, 3, padding=1, bias=False)

    def forward(self, x):
        y = self.conv1(F.relu(self.norm1(x)))
        return torch.cat([x, self.conv2(F.relu(self.norm2(y)))], 1)


class _Transition(nn.Module):
    def __init__(self, c, norm):
        super().__init__()
        self.norm, self.conv = norm(c), nn.Conv2d(c, c // 2, 1, bias=False)

    def forward(self, x):
        return F.avg_pool2d(self.conv(F.relu(self.norm(x))), 2)


class DenseNet121(nn.Module):
    """torchvision's DenseNet-121 up to the pooled features."""

    def __init__(self, norm):
        super().__init__()
        self.features = nn.Sequential()
        self.features.add_module("conv0", nn.Conv2d(3, 64, 7, 2, 3, bias=False))
        self.features.add_module("norm0", norm(64))
        self.features.add_module("relu0", nn.ReLU())
        self.features.add_module("pool0", nn.MaxPool2d(3, 2, 1))
        c = 64
        for i, count in enumerate((6, 12, 24, 16), start=1):
            block = nn.Sequential()
            for j in range(1, count + 1):
                block.add_module(f"denselayer{j}", _DenseLayer(c, norm))
                c += 32
            self.features.add_module(f"denseblock{i}", block)
            if i < 4:
                self.features.add_module(f"transition{i}", _Transition(c, norm))
                c //= 2
        self.features.add_module("norm5", norm(c))

    def forward(self, x):
        return F.relu(self.features(x)).mean((2, 3))


def group_norm(channels):
    return nn.GroupNorm(int(np.gcd(32, channels)), channels)


class UnscaledNorm(nn.GroupNorm):
    """GroupNorm whose weight is no parameter: it has a bias alone."""

    def __init__(self, groups, channels):
        super().__init__(groups, channels)
        del self.weight

    def forward(self, x):
        return F.group_norm(x, self.num_groups, None, self.bias, self.eps)


def unscaled_norm(channels):
    return UnscaledNorm(int(np.gcd(32, channels)), channels)


def standardised_weight(weight):
    """Each filter with mean 0 and variance 1 / fan-in (Qiao et al. 2019, Brock et al. 2021)."""
    flat = weight.flatten(1)
    fan_in = flat.shape[1]
    variance = flat.var(1, unbiased=False, keepdim=True)
    flat = (flat - flat.mean(1, keepdim=True)) / (variance * fan_in).clamp(min=1e-4).sqrt()
    return flat.reshape(weight.shape)


def standardise(net):
    """Lets every convolution of a net multiply by its standardised weight."""

    def forward(self, x):
        return self._conv_forward(x, standardised_weight(self.weight), self.bias)

    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            module.forward = forward.__get__(module)
    return net

"""The VGG and ResNet nets of torchvision, in plain PyTorch: same names, same arithmetic."""

from fastcnn import nn

VGG_COLUMNS = {
    "vgg11": "64 M 128 M 256 256 M 512 512 M 512 512 M",
    "vgg13": "64 64 M 128 128 M 256 256 M 512 512 M 512 512 M",
    "vgg16": "64 64 M 128 128 M 256 256 256 M 512 512 512 M 512 512 512 M",
    "vgg19": "64 64 M 128 128 M 256 256 256 256 M 512 512 512 512 M 512 512 512 512 M",
}


def torch_resnet(torch, net, kernels, stem_stride):
    """A ResNet as torchvision defines it, with the widths of ours."""
    tnn = torch.nn
    shapes = {key: value.shape for key, value in nn.torchvision.state_dict(net).items()}

    def conv(name, stride):
        filters, channels, kernel, _ = shapes[f"{name}.weight"]
        return tnn.Conv2d(channels, filters, kernel, stride, kernel // 2, bias=False)

    class Block(tnn.Module):
        def __init__(self, prefix, stride):
            super().__init__()
            for i, kernel in enumerate(kernels):
                name = f"{prefix}.conv{i + 1}"
                assert shapes[f"{name}.weight"][2] == kernel
                setattr(self, f"conv{i + 1}", conv(name, stride if i == kernels.index(3) else 1))
                setattr(self, f"bn{i + 1}", tnn.BatchNorm2d(shapes[f"{name}.weight"][0]))
            self.downsample = None
            if f"{prefix}.downsample.0.weight" in shapes:
                shortcut = conv(f"{prefix}.downsample.0", stride)
                self.downsample = tnn.Sequential(shortcut, tnn.BatchNorm2d(shortcut.out_channels))

        def forward(self, x):
            out = x
            for i in range(1, len(kernels) + 1):
                out = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(out))
                out = out.relu() if i < len(kernels) else out
            return (out + (self.downsample(x) if self.downsample else x)).relu()

    class ResNet(tnn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = conv("conv1", stem_stride)
            self.bn1 = tnn.BatchNorm2d(self.conv1.out_channels)
            self.stages = sorted({name.split(".")[0] for name in shapes if name.startswith("layer")})
            for i, stage in enumerate(self.stages):
                count = len({name.split(".")[1] for name in shapes if name.startswith(f"{stage}.")})
                blocks = [Block(f"{stage}.{b}", 2 if i and b == 0 else 1) for b in range(count)]
                setattr(self, stage, tnn.Sequential(*blocks))
            self.fc = tnn.Linear(*shapes["fc.weight"][::-1])

        def forward(self, x):
            x = self.bn1(self.conv1(x)).relu()
            x = tnn.functional.max_pool2d(x, 3, 2, 1) if stem_stride == 2 else x
            for stage in self.stages:
                x = getattr(self, stage)(x)
            return self.fc(x.mean((2, 3)))

    return ResNet()


def torch_vgg(torch, column, batch_norm, width, classes, hidden=()):
    """A VGG net; `hidden`: neurons of its hidden affine layers, with which it takes images as torchvision's does."""
    tnn, features, channels = torch.nn, [], 3
    for entry in column.split():
        if entry == "M":
            features.append(tnn.MaxPool2d(2))
            continue
        filters = int(entry) * width // 64
        conv = tnn.Conv2d(channels, filters, 3, padding=1)
        features += [conv, *([tnn.BatchNorm2d(filters)] if batch_norm else []), tnn.ReLU()]
        channels = filters
    side, classifier = 7 if hidden else 1, []
    size = channels * side * side
    for neurons in hidden:
        classifier += [tnn.Linear(size, neurons), tnn.ReLU(), tnn.Dropout()]
        size = neurons

    class VGG(tnn.Module):
        def __init__(self):
            super().__init__()
            self.features, self.avgpool = tnn.Sequential(*features), tnn.AdaptiveAvgPool2d(side)
            self.classifier = tnn.Sequential(*classifier, tnn.Linear(size, classes))

        def forward(self, x):
            return self.classifier(self.avgpool(self.features(x)).flatten(1))

    return VGG()

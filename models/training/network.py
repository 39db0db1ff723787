"""The detector's network: plain convolutions, so that it trains on a CPU and quantises well on ARM.

A small CSP backbone, a path-aggregation neck over strides 8, 16 and 32, and one light head for each stride.
Every convolution is an ordinary 3x3 or 1x1 one followed by batch normalisation and ReLU; nothing else is needed
at run time. A head answers for each cell: how far the four box edges are from the cell's centre (in strides), and
how likely each class is.
"""

import torch
import torch.nn as nn
import torch.nn.functional as F

STRIDES = (8, 16, 32)


class ConvNormRelu(nn.Module):
    def __init__(self, inputs, outputs, kernel=3, stride=1):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.03)

    def forward(self, x):
        return F.relu(self.norm(self.conv(x)), inplace=True)


class CrossStage(nn.Module):
    """Half of the channels take a residual path of 3x3 convolutions, the other half a short cut."""

    def __init__(self, inputs, outputs, depth, residual=True):
        super().__init__()
        self.half = outputs // 2
        self.split = ConvNormRelu(inputs, outputs, 1)
        self.blocks = nn.ModuleList(ConvNormRelu(self.half, self.half) for _ in range(depth))
        self.join = ConvNormRelu(outputs, outputs, 1)
        self.residual = residual

    def forward(self, x):
        short, long = self.split(x).split(self.half, 1)
        for block in self.blocks:
            long = long + block(long) if self.residual else block(long)
        return self.join(torch.cat((short, long), 1))


class PoolPyramid(nn.Module):
    """Sees far around at the coarsest stride for the price of two 1x1 convolutions."""

    def __init__(self, channels):
        super().__init__()
        self.reduce = ConvNormRelu(channels, channels // 2, 1)
        self.expand = ConvNormRelu(channels * 2, channels, 1)

    def forward(self, x):
        x = self.reduce(x)
        once = F.max_pool2d(x, 5, 1, 2)
        twice = F.max_pool2d(once, 5, 1, 2)
        thrice = F.max_pool2d(twice, 5, 1, 2)
        return self.expand(torch.cat((x, once, twice, thrice), 1))


class Head(nn.Module):
    def __init__(self, inputs, hidden, classes):
        super().__init__()
        self.class_branch = ConvNormRelu(inputs, hidden)
        self.box_branch = ConvNormRelu(inputs, 32)
        self.classes = nn.Conv2d(hidden, classes, 1)
        self.distances = nn.Conv2d(32, 4, 1)
        # Start at "nothing here" and at boxes of about five cells: what most cells and most objects are.
        nn.init.constant_(self.classes.bias, -5.0)
        nn.init.normal_(self.classes.weight, std=0.01)
        nn.init.constant_(self.distances.bias, 2.4)
        nn.init.normal_(self.distances.weight, std=0.01)

    def forward(self, x):
        return self.distances(self.box_branch(x)), self.classes(self.class_branch(x))


class Detector(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.pixel_scale = 1 / 255  # folded into the first convolution at export
        self.stem = nn.Sequential(ConvNormRelu(3, 16, stride=2), ConvNormRelu(16, 32, stride=2), CrossStage(32, 32, 1))
        self.stage8 = nn.Sequential(ConvNormRelu(32, 64, stride=2), CrossStage(64, 64, 2))
        self.stage16 = nn.Sequential(ConvNormRelu(64, 128, stride=2), CrossStage(128, 128, 2))
        self.stage32 = nn.Sequential(ConvNormRelu(128, 256, stride=2), CrossStage(256, 256, 1), PoolPyramid(256))

        self.lateral32 = ConvNormRelu(256, 64, 1)
        self.lateral16 = ConvNormRelu(128, 64, 1)
        self.down_path16 = CrossStage(128, 64, 1, residual=False)
        self.down_path8 = CrossStage(128, 64, 1, residual=False)
        self.shrink8 = ConvNormRelu(64, 64, stride=2)
        self.up_path16 = CrossStage(128, 64, 1, residual=False)
        self.shrink16 = ConvNormRelu(64, 64, stride=2)
        self.up_path32 = CrossStage(128, 128, 1, residual=False)
        self.heads = nn.ModuleList((Head(64, 32, classes), Head(64, 48, classes), Head(128, 64, classes)))

    def forward(self, images):
        """[B,3,H,W] RGB 0..255 to distances [B,N,4] in strides and class logits [B,N,C]."""
        x = self.stem(images * self.pixel_scale if self.pixel_scale != 1 else images)
        fine = self.stage8(x)
        middle = self.stage16(fine)
        coarse = self.lateral32(self.stage32(middle))

        middle = self.down_path16(torch.cat((self.lateral16(middle), double(coarse)), 1))
        fine = self.down_path8(torch.cat((fine, double(middle)), 1))
        middle = self.up_path16(torch.cat((middle, self.shrink8(fine)), 1))
        coarse = self.up_path32(torch.cat((coarse, self.shrink16(middle)), 1))

        distances, logits = zip(*(head(x) for head, x in zip(self.heads, (fine, middle, coarse))))
        # Softplus keeps distances positive and, unlike exp, is linear where boxes are large.
        return F.softplus(rows(distances).float()), rows(logits).float()


def double(x):
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def rows(maps):
    """Feature maps of all strides to one list of cells, row by row."""
    return torch.cat([m.flatten(2) for m in maps], 2).transpose(1, 2)


def anchor_points(height, width, device="cpu"):
    """Cell centres in pixels [N,2] and the stride of each cell [N,1], in the order of the outputs."""
    points, strides = [], []
    for stride in STRIDES:
        y, x = torch.meshgrid(torch.arange(height // stride), torch.arange(width // stride), indexing="ij")
        centre = (torch.stack((x, y), -1).reshape(-1, 2) + 0.5) * stride
        points.append(centre)
        strides.append(torch.full((len(centre), 1), float(stride)))
    return torch.cat(points).float().to(device), torch.cat(strides).to(device)


def boxes_from_distances(distances, points, strides):
    """Distances in strides to boxes x1, y1, x2, y2 in pixels."""
    reach = distances * strides
    return torch.cat((points - reach[..., :2], points + reach[..., 2:]), -1)

"""UniMatch V2's network read from its description: DINOv2 with a DPT decoder, under the names of its checkpoints.

An independent reading, to compare imported networks with: plain PyTorch, attention written out, nothing of timm's and
nothing of the package's. It takes normalized images and gives logits at their size.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PATCH = 14
GRID = 37


@dataclass(frozen=True)
class Size:
    """What tells the published sizes apart."""

    width: int
    depth: int
    heads: int
    taps: tuple[int, ...]
    levels: tuple[int, int, int, int]
    features: int


SMALL = Size(384, 12, 6, (2, 5, 8, 11), (48, 96, 192, 384), 64)
BASE = Size(768, 12, 12, (2, 5, 8, 11), (96, 192, 384, 768), 128)
LARGE = Size(1024, 24, 16, (4, 11, 17, 23), (256, 512, 1024, 1024), 256)


class Original(nn.Module):
    """`backbone.*` and `head.*`."""

    def __init__(self, size: Size, classes: int) -> None:
        super().__init__()
        self.backbone = DINOv2(size)
        self.head = Head(size, classes)

    def forward(self, images: Tensor) -> Tensor:
        logits = self.head(self.backbone(images))
        return F.interpolate(logits, images.shape[2:], mode="bilinear", align_corners=True)


class DINOv2(nn.Module):
    def __init__(self, size: Size, registers: int = 0) -> None:
        super().__init__()
        self.size = size
        self.cls_token = nn.Parameter(torch.zeros(1, 1, size.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + GRID * GRID, size.width))
        self.mask_token = nn.Parameter(torch.zeros(1, size.width))
        self.register_tokens = nn.Parameter(torch.zeros(1, registers, size.width)) if registers else None
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, size.width, PATCH, stride=PATCH)
        self.blocks = nn.ModuleList(Block(size) for _ in range(size.depth))
        self.norm = nn.LayerNorm(size.width, eps=1e-6)

    def forward(self, images: Tensor) -> list[Tensor]:
        patches = self.patch_embed.proj(images)
        count, width, rows, columns = patches.shape
        tokens = torch.cat([self.cls_token.expand(count, 1, width), patches.flatten(2).transpose(1, 2)], 1)
        tokens = tokens + self.positions(rows, columns)
        extra = 0
        if self.register_tokens is not None:
            extra = self.register_tokens.shape[1]
            registers = self.register_tokens.expand(count, extra, width)
            tokens = torch.cat([tokens[:, :1], registers, tokens[:, 1:]], 1)
        maps = []
        for index, block in enumerate(self.blocks):
            tokens = block(tokens)
            if index in self.size.taps:
                of_patches = self.norm(tokens)[:, 1 + extra :]
                maps.append(of_patches.transpose(1, 2).reshape(count, width, rows, columns))
        return maps

    def positions(self, rows: int, columns: int) -> Tensor:
        if rows == columns == GRID:
            return self.pos_embed
        grid = self.pos_embed[:, 1:].reshape(1, GRID, GRID, -1).permute(0, 3, 1, 2)
        if self.register_tokens is None:
            factor = ((rows + 0.1) / GRID, (columns + 0.1) / GRID)
            grid = F.interpolate(grid, scale_factor=factor, mode="bicubic", antialias=False)
        else:
            grid = F.interpolate(grid, (rows, columns), mode="bicubic", antialias=True)
        return torch.cat([self.pos_embed[:, :1], grid.flatten(2).transpose(1, 2)], 1)


class Scale(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Block(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(size.width, eps=1e-6) for _ in range(2))
        self.ls1, self.ls2 = Scale(size.width), Scale(size.width)
        self.attn = Attention(size)
        self.mlp = nn.Module()
        self.mlp.fc1 = nn.Linear(size.width, 4 * size.width)
        self.mlp.fc2 = nn.Linear(4 * size.width, size.width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        hidden = self.mlp.fc1(self.norm2(x))
        hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
        return x + self.ls2(self.mlp.fc2(hidden))


class Attention(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        self.heads = size.heads
        self.qkv = nn.Linear(size.width, 3 * size.width)
        self.proj = nn.Linear(size.width, size.width)

    def forward(self, x: Tensor) -> Tensor:
        count, tokens, width = x.shape
        # The rows of qkv are all queries, all keys, all values; within each, head after head.
        query, key, value = self.qkv(x).view(count, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        scores = query @ key.transpose(-2, -1) / math.sqrt(width // self.heads)
        mixed = scores.softmax(-1) @ value
        return self.proj(mixed.transpose(1, 2).reshape(count, tokens, width))


class Head(nn.Module):
    def __init__(self, size: Size, classes: int) -> None:
        super().__init__()
        one, two, _, four = size.levels
        self.projects = nn.ModuleList(nn.Conv2d(size.width, level, 1) for level in size.levels)
        self.resize_layers = nn.ModuleList(
            [
                nn.ConvTranspose2d(one, one, 4, 4),
                nn.ConvTranspose2d(two, two, 2, 2),
                nn.Identity(),
                nn.Conv2d(four, four, 3, 2, 1),
            ]
        )
        scratch = self.scratch = nn.Module()
        for index, level in enumerate(size.levels, 1):
            setattr(scratch, f"layer{index}_rn", nn.Conv2d(level, size.features, 3, padding=1, bias=False))
            setattr(scratch, f"refinenet{index}", Refine(size.features))
        scratch.output_conv = nn.Sequential(
            nn.Conv2d(size.features, size.features, 3, padding=1), nn.ReLU(), nn.Conv2d(size.features, classes, 1)
        )

    def forward(self, maps: list[Tensor]) -> Tensor:
        scratch = self.scratch
        levels = [
            getattr(scratch, f"layer{index + 1}_rn")(self.resize_layers[index](self.projects[index](level)))
            for index, level in enumerate(maps)
        ]
        path = scratch.refinenet4(levels[3], None, levels[2].shape[2:])
        path = scratch.refinenet3(path, levels[2], levels[1].shape[2:])
        path = scratch.refinenet2(path, levels[1], levels[0].shape[2:])
        path = scratch.refinenet1(path, levels[0], [2 * side for side in levels[0].shape[2:]])
        return scratch.output_conv(path)


class Refine(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.out_conv = nn.Conv2d(width, width, 1)
        self.resConfUnit1, self.resConfUnit2 = Residual(width), Residual(width)

    def forward(self, path: Tensor, level: Tensor | None, size: list[int]) -> Tensor:
        if level is not None:
            path = path + self.resConfUnit1(level)
        path = self.resConfUnit2(path)
        return self.out_conv(F.interpolate(path, size, mode="bilinear", align_corners=True))


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(self.conv1(x.relu()).relu())


def random_original(size: Size, classes: int, seed: int = 0) -> Original:
    """An original with every weight random, at scales that keep the signal alive to the logits."""
    network = Original(size, classes).eval()
    randomize(network, seed)
    return network


@torch.no_grad()
def randomize(network: nn.Module, seed: int) -> None:
    """Draw every weight: also those that are 0 or 1 in a fresh network, and would hide a mistake."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in network.named_parameters():
        if name.endswith(("gamma", "norm.weight", "norm1.weight", "norm2.weight")):
            weight.uniform_(0.5, 1.5, generator=generator)
        elif weight.ndim > 1 and "token" not in name and "pos_embed" not in name:
            weight.normal_(std=1 / math.sqrt(weight[0].numel()), generator=generator)
        else:
            weight.normal_(std=0.5, generator=generator)

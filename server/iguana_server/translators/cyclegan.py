"""CycleGAN between two kinds of shoes of Fashion-MNIST: own training, `iguana-server train cyclegan`."""

from __future__ import annotations

from iguana_server.translators.resnet import ResnetGenerator

WIDTH, BLOCKS = 16, 3


def net(width: int = WIDTH, blocks: int = BLOCKS) -> ResnetGenerator:
    """Build a generator: pixels [n, 1, 28, 28] in [-1, 1] -> the same."""
    return ResnetGenerator(1, 1, width, blocks, "instance")

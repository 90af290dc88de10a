"""pix2pix that colours outlines of pictograms: own training, `iguana-server train pix2pix`."""

from __future__ import annotations

from iguana_server.translators.unet import UnetGenerator

WIDTH, DOWNS = 16, 5


def net(width: int = WIDTH, downs: int = DOWNS) -> UnetGenerator:
    """Build the generator: grey pixels [n, 1, 64, 64] in [-1, 1] -> RGB."""
    return UnetGenerator(1, 3, width, downs, "batch")

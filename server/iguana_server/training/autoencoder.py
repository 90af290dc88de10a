"""BEGAN's critic: an autoencoder, which answers with its error. Berthelot et al. 2017, arXiv:1703.10717, 3.1."""

from __future__ import annotations

from torch import Tensor, nn

from iguana_server.models.fashion_mnist import CLASSES

CODE = 64  # numbers that a picture passes through


class Autoencoder(nn.Module):
    """Pixels [n, 1, 28, 28] in [-1, 1] and labels [n] to the mean absolute error of each row, [n], 0 or more.

    The label is told to the decoder, so that a picture of another class than its own comes out wrong.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, width, 4, 2, 1),
            nn.ELU(),
            nn.Conv2d(width, 2 * width, 4, 2, 1),
            nn.ELU(),
            nn.Flatten(),
            nn.Linear(49 * 2 * width, CODE),
        )
        self.label = nn.Embedding(len(CLASSES), CODE)
        self.decoder = nn.Sequential(
            nn.Linear(CODE, 49 * 2 * width),
            nn.ELU(),
            nn.Unflatten(1, (2 * width, 7, 7)),
            nn.ConvTranspose2d(2 * width, width, 4, 2, 1),
            nn.ELU(),
            nn.ConvTranspose2d(width, 1, 4, 2, 1),
            nn.Tanh(),
        )

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        """Map pixels and labels to errors."""
        again = self.decoder(self.encoder(x) + self.label(label))
        error: Tensor = (x - again).abs().flatten(1).mean(1)
        return error

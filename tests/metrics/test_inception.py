"""The FID's Inception network: that of torch-fidelity, on random weights in the published format.

The published weights are not at hand in a test: equal names, shapes and outputs are what is held.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from iguana_server.metrics.inception import Inception
from tests.metrics import references


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random ones, with statistics that are not the identity's."""
    rng = torch.Generator().manual_seed(0)
    state = Inception().state_dict()
    for name, value in state.items():
        if name.endswith(("bn.weight", "running_var")):
            value.uniform_(0.5, 1.5, generator=rng)
        elif value.is_floating_point():
            fan = value[0].numel() if value.dim() > 1 else 100
            value.normal_(0, (2 / fan) ** 0.5, generator=rng)
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(state, path)
    return path


def test_it_is_that_of_torch_fidelity(weights: Path) -> None:
    net = Inception().eval()
    net.load_state_dict(torch.load(weights, weights_only=True))
    theirs = references.load("torch_fidelity.feature_extractor_inceptionv3").FeatureExtractorInceptionV3(
        "theirs", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(weights)
    )
    x = torch.randint(256, (2, 3, 299, 299), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        logits, features = net(x.float() / 255)
        their_features, their_logits = theirs(x)
    assert torch.allclose(features, their_features, rtol=1e-4, atol=1e-5 * their_features.abs().max())
    assert torch.allclose(logits, their_logits, rtol=1e-4, atol=1e-5 * their_logits.abs().max())


def test_the_pooling_matters(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = Inception().eval()
    net.load_state_dict(torch.load(weights, weights_only=True))
    x = torch.rand(1, 3, 299, 299, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        features = net(x)[1]
        monkeypatch.setattr(type(net.Mixed_7c), "pool", type(net.Mixed_7b).pool)
        assert (net(x)[1] - features).abs().max() > 1e-3 * features.abs().max()

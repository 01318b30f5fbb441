"""HuBERT base's architecture at 50 Hz, and the error where its weights can't be had."""

import pytest
import torch

from dubbing.errors import AudioUnusable, CheckpointCorrupt, CheckpointNotFound, OptionInvalid
from dubbing.speech import hubert
from dubbing.speech.hubert import HubertFeatures, import_torchaudio, load_hubert


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return import_torchaudio().models.hubert_base().eval()


@torch.no_grad()
def test_random_hubert_gives_768_channels_at_50_hz(network):
    features = HubertFeatures(network, layer=2)
    batch = features(0.1 * torch.randn(2, 16000))
    assert batch.shape == (2, 50, 768)
    track = features.encode(0.1 * torch.randn(16000 + 319))
    assert track.shape == (50, 768)
    assert track.isfinite().all()


@torch.no_grad()
def test_feature_is_centred_in_its_cell(network):
    """An impulse in the middle of cell k changes the convolutions' output most there."""
    quiet = 0.01 * torch.randn(1, 16000, generator=torch.Generator().manual_seed(0))
    loud = quiet.clone()
    loud[0, 20 * 320 + 160] += 1.0
    padded = [torch.nn.functional.pad(x, (hubert.SIDE, hubert.SIDE)) for x in (quiet, loud)]
    before, after = (network.feature_extractor(x, None)[0][0] for x in padded)
    changed = (after - before).abs().mean(dim=1)
    assert before.shape[0] == 50
    assert int(changed.argmax()) == 20


def test_long_audio_goes_through_windows(network, monkeypatch):
    monkeypatch.setattr(hubert, "WINDOW_S", 1.0)
    monkeypatch.setattr(hubert, "OVERLAP_S", 0.2)
    features = HubertFeatures(network, layer=1)
    assert features.encode(0.1 * torch.randn(2 * 16000)).shape == (100, 768)


def test_bad_layer_and_short_audio_are_refused(network):
    with pytest.raises(OptionInvalid, match=r"within 1\.\.12"):
        HubertFeatures(network, layer=13)
    with pytest.raises(AudioUnusable, match="only 100 samples"):
        HubertFeatures(network).encode(torch.zeros(100))


def test_missing_and_broken_weights_have_their_own_errors(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(hubert, "HUBERT_URL", "http://127.0.0.1:9/hubert.pth")
    with pytest.raises(CheckpointNotFound, match="can't be downloaded"):
        load_hubert()
    (tmp_path / "checkpoints").mkdir(exist_ok=True)
    (tmp_path / "checkpoints" / "hubert.pth").write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointCorrupt, match=r"hubert\.pth"):
        load_hubert()

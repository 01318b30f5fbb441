"""The silero-vad network in plain torch, with the weights that the `silero-vad` wheel ships.

The wheel's own loader runs one 32 ms window per call and keeps its state inside the model, and
importing it changes torch's thread count and may import torchaudio. Here only the weights are
read; a block of windows passes the convolutions at once, and no state survives a call.
"""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dubbing.errors import CheckpointCorrupt, CheckpointNotFound

SAMPLE_RATE = 16000  # Hz
VAD_WINDOW = 512  # samples per probability, 32 ms
CONTEXT = 64  # samples of the previous window put in front of each
BLOCK_WINDOWS = 1024  # windows per pass through the convolutions: bounds memory
STFT_SIZE = 256
STFT_HOP = 128
STATE = 128  # channels of the recurrent state

# our parameter names -> names in the wheel's model
WEIGHT_NAMES = {
    "stft.weight": "_model.stft.forward_basis_buffer",
    "convs.0": "_model.encoder.0.reparam_conv",
    "convs.1": "_model.encoder.1.reparam_conv",
    "convs.2": "_model.encoder.2.reparam_conv",
    "convs.3": "_model.encoder.3.reparam_conv",
    "lstm.weight_ih_l0": "_model.decoder.rnn.weight_ih",
    "lstm.weight_hh_l0": "_model.decoder.rnn.weight_hh",
    "lstm.bias_ih_l0": "_model.decoder.rnn.bias_ih",
    "lstm.bias_hh_l0": "_model.decoder.rnn.bias_hh",
    "head": "_model.decoder.decoder.2",
}


class SileroVad(nn.Module):
    """Spectrum, four convolutions, one LSTM over windows, one logit per window."""

    def __init__(self) -> None:
        super().__init__()
        bins = STFT_SIZE // 2 + 1
        self.stft = nn.Conv1d(1, 2 * bins, STFT_SIZE, stride=STFT_HOP, bias=False)
        self.convs = nn.ModuleList(
            [
                nn.Conv1d(bins, 128, 3, padding=1),
                nn.Conv1d(128, 64, 3, stride=2, padding=1),
                nn.Conv1d(64, 64, 3, stride=2, padding=1),
                nn.Conv1d(64, STATE, 3, padding=1),
            ]
        )
        self.lstm = nn.LSTM(STATE, STATE, batch_first=True)
        self.head = nn.Conv1d(STATE, 1, 1)

    def forward(self, samples: Tensor, gain: float = 1.0) -> Tensor:
        """Speech probability per window.

        Args:
            samples: [N] float32, 16 kHz mono, full scale 1.0; only BLOCK_WINDOWS are copied at a
                time.
            gain: by which they are multiplied.

        Returns:
            [ceil(N / 512)] float32 in 0..1; the last window is filled up with zeros.
        """
        windows = -(-samples.numel() // VAD_WINDOW)
        if windows == 0:
            return samples.new_zeros(0)
        state = None
        outputs = []
        for first in range(0, windows, BLOCK_WINDOWS):
            start = first * VAD_WINDOW - CONTEXT
            stop = min(first + BLOCK_WINDOWS, windows) * VAD_WINDOW
            part = samples[max(start, 0) : stop] * gain
            filled = F.pad(part, (max(-start, 0), max(stop - samples.numel(), 0)))
            hidden = self._window_features(filled.unfold(0, VAD_WINDOW + CONTEXT, VAD_WINDOW))
            hidden, state = self.lstm(hidden[None], state)
            logits = self.head(F.relu(hidden).transpose(1, 2))
            outputs.append(torch.sigmoid(logits)[0, 0])
        return torch.cat(outputs)

    def _window_features(self, frames: Tensor) -> Tensor:
        """[n, 576] samples -> [n, 128]."""
        x = F.pad(frames[:, None], (0, CONTEXT), mode="reflect")
        real, imaginary = self.stft(x).chunk(2, dim=1)
        x = (real.square() + imaginary.square()).sqrt()
        for conv in self.convs:
            x = F.relu(conv(x))
        return x.squeeze(-1)


def silero_model_path() -> Path:
    """The model file of the installed `silero-vad` package, which is not imported.

    Raises:
        CheckpointNotFound: the package or its model is missing.
    """
    hint = "install it with: pip install 'silero-vad>=6,<7'"
    spec = importlib.util.find_spec("silero_vad")
    if spec is None or not spec.submodule_search_locations:
        raise CheckpointNotFound("the package silero-vad is not installed", hint=hint)
    path = Path(next(iter(spec.submodule_search_locations)), "data", "silero_vad.jit")
    if not path.is_file():
        raise CheckpointNotFound("silero-vad's model is missing", path=path, hint=hint)
    return path


@functools.cache
def load_silero() -> SileroVad:
    """The network with the installed package's weights: on the CPU, frozen, loaded once.

    Raises:
        CheckpointNotFound: the package or its model is missing.
        CheckpointCorrupt: the package's model does not have the expected parameters.
    """
    path = silero_model_path()
    loaded = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    stored: dict[str, Tensor] = loaded.state_dict()
    state = {}
    for ours, theirs in WEIGHT_NAMES.items():
        for suffix in ("", ".weight", ".bias"):
            if theirs + suffix in stored:
                state[ours + suffix] = stored[theirs + suffix].detach().clone()
    network = SileroVad()
    try:
        network.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise CheckpointCorrupt(
            f"silero-vad's model does not fit: {error}",
            path=path,
            hint="install silero-vad>=6,<7",
        ) from error
    return network.eval().requires_grad_(False)

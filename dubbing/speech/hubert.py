"""HuBERT base through torchaudio: the paper's audio encoder, an alternative for training.

Its weights (360 MB, LibriSpeech 960 h) are downloaded when they are first needed. Our own encoder
(`dubbing.models.speech_encoder`) needs no download and is what the engine ships.
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path
from pickle import UnpicklingError
from types import ModuleType
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dubbing.errors import (
    AudioUnusable,
    CheckpointCorrupt,
    CheckpointNotFound,
    DubbingError,
    OptionInvalid,
)
from dubbing.speech.features import encode_spans, window_frames

HUBERT_URL = "https://download.pytorch.org/torchaudio/models/hubert_fairseq_base_ls960.pth"
HUBERT_LAYERS = 12
HUBERT_WIDTH = 768
STRIDE = 320  # samples per feature, 20 ms at 16 kHz
RECEPTIVE = 400  # samples that one feature of the convolutions sees, 25 ms
WINDOW_S = 20.0  # seconds per pass
OVERLAP_S = 2.0  # on either side of the place where two windows meet
SIDE = (RECEPTIVE - STRIDE) // 2  # padding on either side that centres feature k in its cell

logger = logging.getLogger(__name__)


def import_torchaudio() -> ModuleType:
    """torchaudio, also where its extension is linked to CUDA and torch is not.

    There the import of `torchaudio._extension` ends in OSError. Everything in pure torch works
    without it, so an empty stand-in is registered and the import repeated; `forced_align` and the
    RNN-T loss stay unavailable.

    Raises:
        DubbingError: torchaudio is not installed, or can't be imported even so.
    """
    try:
        return importlib.import_module("torchaudio")
    except ModuleNotFoundError as error:
        raise DubbingError(
            f"torchaudio can't be imported: {error}",
            hint="install it with: pip install 'torchaudio>=2.9,<2.12'",
        ) from error
    except OSError as error:
        logger.info("torchaudio without its extension: %s", error)
    loaded = [name for name in sys.modules if name.split(".")[0] == "torchaudio"]
    for name in loaded:  # remains of the import that failed
        del sys.modules[name]
    sys.modules["torchaudio._extension"] = _extension_stand_in()
    try:
        return importlib.import_module("torchaudio")
    except (ImportError, OSError) as error:
        del sys.modules["torchaudio._extension"]
        raise DubbingError(
            f"torchaudio does not work with torch {torch.__version__}: {error}",
            hint="install the torchaudio release that belongs to this torch",
        ) from error


def _extension_stand_in() -> ModuleType:
    """What torchaudio's pure-torch modules look up in the extension package."""
    module = ModuleType("torchaudio._extension")

    def fail_if_no_align(function: object) -> object:
        return function

    def load_lib(name: str) -> bool:
        raise ImportError(f"torchaudio's extension {name} is not available")

    vars(module).update(
        _IS_TORCHAUDIO_EXT_AVAILABLE=False,
        _IS_ALIGN_AVAILABLE=False,
        _load_lib=load_lib,
        fail_if_no_align=fail_if_no_align,
    )
    return module


class HubertFeatures(nn.Module):
    """Hidden states of HuBERT base at 50 Hz; same interface as `SpeechFeatures`.

    Args:
        network: a torchaudio `Wav2Vec2Model` of HuBERT base's shape.
        layer: number of the transformer layer whose output is taken, 1..12.
    """

    feature_dim = HUBERT_WIDTH

    def __init__(self, network: nn.Module, layer: int = HUBERT_LAYERS) -> None:
        super().__init__()
        if not 1 <= layer <= HUBERT_LAYERS:
            raise OptionInvalid(f"HuBERT layer {layer} is not within 1..{HUBERT_LAYERS}")
        self.network = network
        self.layer = layer

    def forward(self, samples: Tensor) -> Tensor:
        """[B, N] samples (16 kHz mono, full scale 1.0) -> [B, T50, 768], T50 = N // 320.

        Feature k is centred at 0.02 k + 0.01 s.

        Raises:
            AudioUnusable: fewer than 320 samples.
        """
        _check_length(samples)
        extract = cast(Callable[..., tuple[list[Tensor], object]], self.network.extract_features)
        states, _ = extract(F.pad(samples, (SIDE, SIDE)), num_layers=self.layer)
        return states[self.layer - 1]

    @torch.no_grad()
    def encode(self, samples: Tensor) -> Tensor:
        """Features of a whole track: [N] samples -> [N // 320, 768] float32, in windows of 20 s.

        Raises:
            AudioUnusable: fewer than 320 samples.
        """
        _check_length(samples)
        self.eval()
        parameter = next(self.network.parameters())
        samples = samples.to(parameter.device, parameter.dtype)
        total = samples.numel() // STRIDE
        window, overlap = window_frames(WINDOW_S, OVERLAP_S)

        def encode_span(start: int, end: int) -> Tensor:
            return self.forward(samples[None, start * STRIDE : end * STRIDE])[0]

        return encode_spans(total, window, overlap, encode_span, parameter.device)

    def blocks(self, samples: Tensor) -> Iterator[Tensor]:
        """The features of `encode` at once."""
        yield self.encode(samples)


def _check_length(samples: Tensor) -> None:
    if samples.shape[-1] < STRIDE:
        raise AudioUnusable(
            f"the audio has only {samples.shape[-1]} samples at 16 kHz",
            hint="give at least 0.2 s of speech",
        )


def load_hubert(layer: int = HUBERT_LAYERS) -> HubertFeatures:
    """HuBERT base with its published weights, downloaded into torch's cache when missing.

    Raises:
        CheckpointNotFound: the weights can't be downloaded.
        CheckpointCorrupt: what was downloaded can't be read or does not fit.
        DubbingError: torchaudio is missing or does not work here.
    """
    network = import_torchaudio().models.hubert_base()
    try:
        state = torch.hub.load_state_dict_from_url(
            HUBERT_URL, map_location="cpu", weights_only=True, progress=False
        )
        network.load_state_dict(state, strict=True)
    except (OSError, HTTPException) as error:  # no network, refused, broken off, no room
        raise CheckpointNotFound(
            f"HuBERT's weights can't be downloaded: {error}",
            path=HUBERT_URL,
            hint="connect to the network, or use the encoder that comes with the engine",
        ) from error
    except (RuntimeError, EOFError, UnpicklingError) as error:
        raise CheckpointCorrupt(
            f"HuBERT's downloaded weights can't be read: {error}",
            path=Path(torch.hub.get_dir(), "checkpoints", Path(HUBERT_URL).name),
            hint="delete this file, so that it is downloaded again",
        ) from error
    return HubertFeatures(network, layer).eval()

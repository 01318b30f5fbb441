"""Footage prepared once for all training tests, and a speech encoder to start from."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from puppet_footage import CLIPS, small_puppet, write_clip, write_wall

sys.path.insert(0, str(Path(__file__).parents[1] / "geometry"))

from dubbing.cli import main
from dubbing.models.speech_encoder import SpeechEncoder, SpeechEncoderConfig
from dubbing.weights import SPEECH, save_network

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CLIPS videos in two folders, and one without a face."""
    folder = tmp_path_factory.mktemp("footage")
    puppet = small_puppet()
    for clip in range(CLIPS):
        place = folder / ("one" if clip < CLIPS - 1 else "two")
        place.mkdir(exist_ok=True)
        write_clip(place / f"take{clip % (CLIPS - 1)}.mkv", puppet, clip)  # a name twice
    write_wall(folder / "wall.mp4")
    return folder


@pytest.fixture(scope="session")
def prepared(footage: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `dub train prepare` makes of the footage."""
    output = tmp_path_factory.mktemp("prepared")
    status = main(
        [
            "train",
            "prepare",
            "--data",
            str(footage),
            "--output",
            str(output),
            "--workers",
            "1",
            "--no-care",
        ]  # the puppet's lips don't follow its sound
    )
    assert status == 0
    return output


@pytest.fixture(scope="session")
def start_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small speech encoder that has learned nothing."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("start") / "speech_encoder.safetensors"
    config = SpeechEncoderConfig(width=32, heads=2, ffn_width=64)
    save_network(path, SPEECH, SpeechEncoder(config), half=True)
    return path

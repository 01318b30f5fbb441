"""Encoders of graphics cards: their options, and what is said where there is no card."""

from __future__ import annotations

import subprocess

import pytest

from dubbing.errors import OptionInvalid
from dubbing.media.encoders import check_encoder, quality_options
from dubbing.options import CODECS, NVENC, PRESETS, DubOptions


def has_encoder_card() -> bool:
    command = ["nvidia-smi", "--query-gpu=encoder.stats.sessionCount", "--format=csv,noheader"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return False
    return any(line.strip().isdecimal() for line in told.splitlines())


@pytest.mark.parametrize("codec", NVENC)
def test_quality_and_presets_are_spelled_as_nvenc_does(codec: str) -> None:
    options = quality_options(codec, 20.0, "medium")
    assert (options["rc"], options["cq"], options["b"]) == ("vbr", "20", "0")
    made = {quality_options(codec, 20.0, preset)["preset"] for preset in PRESETS}
    assert made == {f"p{k}" for k in range(1, 8)}


@pytest.mark.parametrize("codec", [c for c in CODECS if c not in NVENC])
def test_other_encoders_always_start(codec: str) -> None:
    check_encoder(codec)


@pytest.mark.skipif(has_encoder_card(), reason="this machine has an encoder card")
@pytest.mark.parametrize("codec", NVENC)
def test_clear_words_where_there_is_no_card(codec: str) -> None:
    assert DubOptions(codec=codec).codec == codec
    with pytest.raises(OptionInvalid, match=rf"{codec} does not start.*NVIDIA.*libx264"):
        check_encoder(codec)


@pytest.mark.skipif(not has_encoder_card(), reason="no NVIDIA card with an encoder here")
@pytest.mark.parametrize("codec", ["h264_nvenc", "hevc_nvenc"])
def test_encoder_starts_where_there_is_a_card(codec: str) -> None:
    check_encoder(codec)

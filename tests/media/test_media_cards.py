"""Coders of graphics cards: their options, and what is said where there is no card."""

from __future__ import annotations

import subprocess
from pathlib import Path

import av
import numpy as np
import pytest

from dubbing.errors import OptionInvalid
from dubbing.media.encoders import check_encoder, quality_options
from dubbing.media.hardware import DECODERS, check_decoder
from dubbing.media.planes import convert_format
from dubbing.media.reader import VideoReader
from dubbing.options import CODECS, NVENC, PRESETS, DubOptions


def asked(fact: str) -> list[str]:
    """What the driver says of every card, nothing where there is none."""
    command = ["nvidia-smi", f"--query-gpu={fact}", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    except (OSError, subprocess.CalledProcessError):
        return []


def has_card() -> bool:
    return bool(asked("index"))


def has_encoder_card() -> bool:
    return any(word.isdecimal() for word in asked("encoder.stats.sessionCount"))


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


@pytest.mark.skipif(has_card(), reason="this machine has an NVIDIA card")
def test_clear_words_where_no_card_decodes() -> None:
    check_decoder("software")
    with pytest.raises(OptionInvalid, match=r"nvdec does not start.*NVIDIA.*software"):
        check_decoder("nvdec")
    with pytest.raises(OptionInvalid, match="none of software, nvdec"):
        check_decoder("abacus")


@pytest.mark.parametrize(("layout", "kept"), [("nv12", "yuv420p"), ("p010le", "yuv420p10le")])
def test_samples_of_a_card_come_back_equal(layout: str, kept: str) -> None:
    random = np.random.default_rng(0)
    rgb = random.integers(0, 255, (64, 96, 3), dtype=np.uint8)
    picture = av.VideoFrame.from_ndarray(rgb, "rgb24").reformat(format=kept)
    back = convert_format(picture.reformat(format=layout), kept)
    for made, given in zip(back.planes, picture.planes, strict=True):
        assert bytes(made) == bytes(given)
    assert back.key_frame == picture.key_frame  # places are found by it


@pytest.mark.skipif(not has_card(), reason="no NVIDIA card here")
def test_card_decodes_the_same_frames(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as sink:
        stream = sink.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 256, 256, "yuv420p"
        for k in range(20):
            rgb = np.full((256, 256, 3), 12 * k, np.uint8)
            sink.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, "rgb24")))
        sink.mux(stream.encode(None))
    frames = [list(VideoReader(path, decoder=name)) for name in DECODERS]
    assert len(frames[0]) == len(frames[1]) == 20
    for one, other in zip(*frames, strict=True):
        assert one.pts == other.pts
        assert (one.rgb() == other.rgb()).all()


@pytest.mark.skipif(not has_encoder_card(), reason="no NVIDIA card with an encoder here")
@pytest.mark.parametrize("codec", ["h264_nvenc", "hevc_nvenc"])
def test_encoder_starts_where_there_is_a_card(codec: str) -> None:
    check_encoder(codec)

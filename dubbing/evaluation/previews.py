"""Small copies of videos for a page: VP8 and Opus in WebM, which every browser plays."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from dubbing.media.audio import load_speech
from dubbing.media.output import disk_errors
from dubbing.media.reader import VideoReader

WIDTH = 320  # px
BIT_RATE = 350_000
SOUND_RATE = 16000  # Hz: as the speech is evaluated
CLOCK = 1000  # Matroska counts milliseconds
LONGEST_S = 20.0  # a page is not made for long films
OPTIONS = {"deadline": "realtime", "cpu-used": "8"}


def write_preview(video: Path, output: Path, sound: Path | None = None) -> None:
    """A copy of `video`, at most 320 px wide and 20 s long, with the sound of `sound` in place of
    its own where that is given.

    Raises:
        InputNotFound, NotAVideo, NoAudioStream: a file can't be read.
        DiskFull, MediaFailed: the copy can't be written.
    """
    samples = load_speech(sound or video)[: round(LONGEST_S * SOUND_RATE)]
    with (
        disk_errors(output),
        VideoReader(video) as reader,
        av.open(str(output), "w", format="webm") as sink,
    ):
        width, height = reader.video.display_size
        scale = min(WIDTH / width, 1.0)
        size = (max(round(width * scale / 2) * 2, 2), max(round(height * scale / 2) * 2, 2))
        stream: Any = sink.add_stream("libvpx", rate=25, options=OPTIONS)
        stream.width, stream.height = size
        stream.pix_fmt, stream.bit_rate = "yuv420p", BIT_RATE
        stream.time_base = stream.codec_context.time_base = Fraction(1, CLOCK)
        voice: Any = sink.add_stream("libopus", rate=SOUND_RATE)
        voice.layout, voice.bit_rate = "mono", 32_000
        last = -1
        for frame in reader:
            at = round(frame.offset * CLOCK)
            if at > LONGEST_S * CLOCK:
                break
            picture = av.VideoFrame.from_ndarray(frame.rgb(size), "rgb24")
            picture.pts, picture.time_base = max(at, last + 1), Fraction(1, CLOCK)
            last = picture.pts
            sink.mux(stream.encode(picture))
        sink.mux(stream.encode(None))
        block = np.ascontiguousarray((samples.clip(-1, 1) * 32767).astype(np.int16)[None])
        part = av.AudioFrame.from_ndarray(block, format="s16", layout="mono")
        part.sample_rate, part.pts = SOUND_RATE, 0
        for piece in voice.encode(part):
            sink.mux(piece)
        sink.mux(voice.encode(None))

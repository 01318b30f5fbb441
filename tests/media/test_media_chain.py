"""Reader, plan, compositing, writer and mux together."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
from media_samples import (
    TB_24000,
    TURN_90,
    VFR_PTS,
    make_audio,
    make_video,
    planes_of,
    tone,
)

from dubbing.media.audio import audio_duration, decode_audio
from dubbing.media.mux import mux
from dubbing.media.planes import rgb_region_upright
from dubbing.media.reader import VideoReader
from dubbing.media.timeline import iter_plan, plan_output
from dubbing.media.writer import VideoWriter


def test_only_the_pasted_region_differs_from_file_to_file(tmp_path: Path) -> None:
    """A lossless encoder shows that nothing between source and result touches a sample."""
    source = make_video(tmp_path / "in.mp4", VFR_PTS, TB_24000, matrix=TURN_90, tags=(1, 1, 1, 1))
    speech = make_audio(tmp_path / "s.wav", "pcm_s16le", tone(1.4, 16000), 16000)
    reader = VideoReader(source)
    plan = plan_output(reader.index.times, reader.index.duration, audio_duration(speech), "audio")
    rgb = np.full((12, 16, 3), (200.0, 80.0, 60.0), np.float32)
    alpha = np.ones((12, 16), np.float32)
    alpha[0] = 0
    intermediate = tmp_path / "pictures.part"
    with VideoWriter(intermediate, reader.video, "ffv1") as writer:
        for placed in iter_plan(reader, plan):
            writer.write(placed.source.paste(rgb, alpha, 20, 30), placed.pts)
    out = tmp_path / "out.mkv"
    mux(intermediate, speech, source, out, duration=plan.duration)

    given = {frame.index: frame for frame in reader}
    entries = list(plan.frames())
    result = list(VideoReader(out))
    assert len(result) == plan.count > len(VFR_PTS)
    for frame, entry in zip(result, entries, strict=True):
        assert abs(frame.offset - entry.time) <= Fraction(1, 1000)
        before, after = planes_of(given[entry.source].frame), planes_of(frame.frame)
        # upright (20..36, 31..42) is stored columns 31..42, rows 48 - 36 .. 48 - 20
        mask = np.ones((48, 64), bool)
        mask[12:28, 31:42] = False
        np.testing.assert_array_equal(before[0][mask], after[0][mask])
        for a, b in zip(before[1:], after[1:], strict=True):
            still = mask.reshape(24, 2, 32, 2).all(axis=(1, 3))
            np.testing.assert_array_equal(a[still], b[still])
        shown = rgb_region_upright(frame.frame, 22, 34, 12, 6, frame.rotation).astype(int)
        assert np.abs(shown - (200, 80, 60)).max() <= 2
    np.testing.assert_array_equal(decode_audio(out)[0], decode_audio(speech)[0])

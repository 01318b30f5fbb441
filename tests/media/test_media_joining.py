"""Segments joined packet by packet: every frame at its tick, decodable, once."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from media_samples import TB_24000, TURN_90, VFR_PTS, make_audio, make_video, picture, tone

from dubbing.errors import MediaFailed
from dubbing.job.joining import Piece, join_segments
from dubbing.media.mux import mux
from dubbing.media.probe import VideoStreamInfo, require_video
from dubbing.media.reader import VideoReader
from dubbing.media.writer import VideoWriter, codec_muxer

STEPS = [1001, 1001, 2002, 1001, 500, 1501, 1001, 1001, 3003]  # variable frame rate
LAST = 1777


def times(count: int, start: int) -> list[int]:
    out = [start]
    while len(out) < count:
        out.append(out[-1] + STEPS[len(out) % len(STEPS)])
    return out


@pytest.fixture(scope="module")
def like(tmp_path_factory: pytest.TempPathFactory) -> VideoStreamInfo:
    path = tmp_path_factory.mktemp("joining") / "like.mp4"
    make_video(path, VFR_PTS, TB_24000, matrix=TURN_90, tags=(1, 1, 1, 1))
    video = require_video(path).video
    assert video is not None
    return video


def pieces(
    folder: Path, like: VideoStreamInfo, pts: list[int], edges: list[int], codec: str
) -> list[Piece]:
    """Each segment by an encoder of its own, as the renderer does it."""
    made = []
    for number, (start, stop) in enumerate(pairwise(edges)):
        path = folder / f"{number}.video"
        with VideoWriter(path, like, codec, preset="medium") as writer:
            for k in range(start, stop):
                after = pts[k + 1] - pts[k] if k + 1 < len(pts) else LAST
                writer.write(picture(k), pts[k] - pts[start], after)
        made.append(Piece(path, start, stop - start, writer.delay))
    return made


def packets(path: Path) -> list[tuple[int, int, int]]:
    with av.open(str(path)) as container:
        return [(p.pts, p.dts, p.duration) for p in container.demux(video=0) if p.size]


@pytest.mark.parametrize("codec", ["libx264", "libx265", "libvpx-vp9", "ffv1"])
@pytest.mark.parametrize("start", [0, 90_000, -2002])
def test_every_frame_is_at_its_tick(
    tmp_path: Path, like: VideoStreamInfo, codec: str, start: int
) -> None:
    pts = times(31, start)
    made = pieces(tmp_path, like, pts, [0, 12, 13, 31], codec)
    output = tmp_path / "joined"
    join_segments(made, output, codec_muxer(codec, like), TB_24000, pts, LAST)
    shift = max(0, -start)
    found = packets(output)
    assert sorted(p[0] for p in found) == [p + shift for p in pts]
    decoding = [p[1] for p in found]
    assert decoding == sorted(set(decoding))
    assert all(dts <= shown for shown, dts, _ in found)
    if codec == "libx264":
        assert max(piece.delay for piece in made) > 0  # there are B-frames to get right
    with VideoReader(output) as reader:
        back = [(frame.pts, frame.frame) for frame in reader]
        if codec != "libvpx-vp9":  # of which nobody reads the durations back
            assert reader.index.last_duration == LAST
        assert reader.video.display_matrix == TURN_90
    assert [p for p, _ in back] == [p + shift for p in pts]
    for k, (_, frame) in enumerate(back):  # in the right order: each looks like its own picture
        wanted = picture(k).to_ndarray(format="gray").astype(int)
        assert np.abs(frame.to_ndarray(format="gray").astype(int) - wanted).mean() < 12


def test_a_piece_of_one_frame_is_decoded_when_it_is_shown(
    tmp_path: Path, like: VideoStreamInfo
) -> None:
    """x265 makes up the decoding time of a clip of one frame; muxers refuse what is far off."""
    for codec in ("libx264", "libx265"):
        (piece,) = pieces(tmp_path, like, [90_000], [0, 1], codec)
        assert packets(piece.path) == [(0, 0, LAST)]


def test_the_joined_stream_goes_through_the_muxer(tmp_path: Path, like: VideoStreamInfo) -> None:
    pts = times(25, 4004)
    made = pieces(tmp_path, like, pts, [0, 10, 20, 25], "libx264")
    join_segments(made, tmp_path / "joined", "mp4", TB_24000, pts, LAST)
    sound = make_audio(tmp_path / "s.m4a", "aac", tone(1.0, 44100), 44100)
    source = make_video(tmp_path / "source.mp4", pts, TB_24000)
    mux(tmp_path / "joined", sound, source, tmp_path / "out.mp4")
    with VideoReader(tmp_path / "out.mp4") as reader:
        assert [frame.time for frame in reader] == [Fraction(p, 24000) for p in pts]


def test_a_piece_that_lacks_a_frame_is_refused(tmp_path: Path, like: VideoStreamInfo) -> None:
    pts = times(12, 0)
    first, second = pieces(tmp_path, like, pts, [0, 6, 12], "ffv1")
    with pytest.raises(MediaFailed, match="holds 6 frames, not 7"):
        join_segments(
            [dataclasses.replace(first, count=7), second], tmp_path / "a", "mp4", TB_24000, pts, 1
        )
    with pytest.raises(MediaFailed, match="tick 6005 does not belong"):
        join_segments(
            [dataclasses.replace(first, count=5), second], tmp_path / "b", "mp4", TB_24000, pts, 1
        )


def test_pieces_of_other_encoders_are_refused(tmp_path: Path, like: VideoStreamInfo) -> None:
    pts = times(12, 0)
    first = pieces(tmp_path, like, pts, [0, 6, 12], "libx264")[0]
    (tmp_path / "other").mkdir()
    second = pieces(tmp_path / "other", like, pts, [0, 6, 12], "libx265")[1]
    with pytest.raises(MediaFailed, match="other parameters"):
        join_segments([first, second], tmp_path / "joined", "mp4", TB_24000, pts, 1)

"""An encoder's bytes depend on the pictures alone, not on what the memory held before."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from media_samples import make_video

SCRIPT = """
import ctypes, hashlib, sys
import av, numpy as np
from dubbing.media.reader import VideoReader
from dubbing.media.writer import VideoWriter

M_PERTURB, M_MMAP_THRESHOLD = -6, -3
libc = ctypes.CDLL(None)
libc.mallopt(M_MMAP_THRESHOLD, 1 << 25)  # pictures in memory that was used before, as later on
source, made, codec = sys.argv[1:]
with av.open(source) as container:
    pictures = [f.to_ndarray(format="yuv420p") for f in container.decode(video=0)]
with VideoReader(source) as reader:
    like = reader.video
digests = set()
for filling in (0, 1, 85, 170):
    libc.mallopt(M_PERTURB, filling)
    with VideoWriter(made, like, codec) as writer:
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, "yuv420p")
            writer.write(frame, round(number / 25 / like.time_base))
    with av.open(made) as container:
        packets = [bytes(p) for p in container.demux(video=0)]
    digests.add(hashlib.sha256(b"".join(packets)).hexdigest())
print(len(digests))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt is glibc's")
@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_bytes_do_not_depend_on_what_memory_held(codec: str, tmp_path: Path) -> None:
    source = tmp_path / "source.mp4"
    make_video(source, range(45), size=(208, 160))  # 13 macroblocks wide
    made = str(tmp_path / "made.mp4")
    command = [sys.executable, "-c", SCRIPT, str(source), made, codec]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "1"

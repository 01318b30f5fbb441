"""Several speech tracks as one: added sample by sample, in step, and never clipped."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from dubbing.errors import OptionInvalid
from dubbing.media.audio import decoded_frames
from dubbing.media.limits import DEFAULT_LIMITS, Limits
from dubbing.media.output import disk_errors
from dubbing.media.probe import require_audio

BLOCK = 8192  # samples mixed at once
CEILING = 0.999  # of full scale: a louder sum is turned down as a whole
_MONO, _STEREO = "mono", "stereo"


def mix_speech(
    paths: Sequence[str | Path], output: Path, limits: Limits | None = DEFAULT_LIMITS
) -> float:
    """Add the first sound streams of `paths`, which all begin at 0, into a 24-bit WAV file.

    The result has the highest of their rates, and is mono where all are, else stereo. It lasts as
    long as the longest. Streams through the files twice: the first time for the peak.

    Returns:
        the gain that every track got: 1, or less where their sum would have clipped.

    Raises:
        InputNotFound, NoAudioStream: see `dubbing.media.probe.require_audio`.
        InputTooLarge: one is longer than `limits` allow.
        OptionInvalid: no path.
        OutputUnwritable, DiskFull: `output` can't be written.
    """
    if not paths:
        raise OptionInvalid("there is no speech to mix")
    streams = [require_audio(path, limits).audio[0] for path in paths]
    rate = max(stream.sample_rate for stream in streams)
    layout = _MONO if all(stream.channels == 1 for stream in streams) else _STEREO
    sums = partial(_sums, paths, rate, layout, limits)
    peak = max((float(np.abs(block).max()) for block in sums()), default=0.0)
    gain = min(1.0, CEILING / peak) if peak > 0 else 1.0
    with disk_errors(output), av.open(str(output), "w", options={"rf64": "auto"}) as sink:
        stream: Any = sink.add_stream("pcm_s24le", rate=rate, layout=layout)
        done = 0
        for block in sums():
            scaled = np.rint(block.astype(np.float64) * gain * 2**23).clip(-(2**23), 2**23 - 1)
            wide = np.ascontiguousarray((scaled.astype(np.int64) << 8).astype(np.int32).T)
            frame = av.AudioFrame.from_ndarray(wide.reshape(1, -1), "s32", layout)
            frame.sample_rate, frame.pts, frame.time_base = rate, done, Fraction(1, rate)
            done += block.shape[1]
            sink.mux(stream.encode(frame))
        sink.mux(stream.encode(None))
    return gain


def _sums(
    paths: Sequence[str | Path], rate: int, layout: str, limits: Limits | None
) -> Iterator[NDArray[np.float32]]:
    """Blocks [C, n] of the sum, full scale -1..1; tracks that have ended are silent."""
    for blocks in zip_longest(*(_blocks(path, rate, layout, limits) for path in paths)):
        length = max(block.shape[1] for block in blocks if block is not None)
        total = np.zeros((1 if layout == _MONO else 2, length), np.float32)
        for block in blocks:
            if block is not None:
                total[:, : block.shape[1]] += block
        yield total


def _blocks(
    path: str | Path, rate: int, layout: str, limits: Limits | None
) -> Iterator[NDArray[np.float32]]:
    """Blocks [C, BLOCK] of one track, the last one shorter."""
    resampler: av.AudioResampler | None = None
    setup: tuple[Any, ...] | None = None
    held = np.zeros((1 if layout == _MONO else 2, 0), np.float32)
    single = False

    def taken(frames: list[av.AudioFrame]) -> NDArray[np.float32]:
        parts = [np.asarray(frame.to_ndarray(), np.float32) for frame in frames]
        # a mono track is as loud in both channels of a mix as it is alone
        louder = math.sqrt(2) if single and layout == _STEREO else 1.0
        return np.concatenate([held, *(part * louder for part in parts)], 1)

    for frame in decoded_frames(path, limits):
        current = (frame.sample_rate, frame.format.name, frame.layout.name)
        if resampler is None or current != setup:
            if resampler is not None:  # the stream changes its format: finish the old one
                held = taken(resampler.resample(None))
            resampler = av.AudioResampler(format="fltp", layout=layout, rate=rate)
            setup, single = current, frame.layout.nb_channels == 1
        frame.pts = None  # samples are laid end to end
        held = taken(resampler.resample(frame))
        while held.shape[1] >= BLOCK:
            yield held[:, :BLOCK]
            held = held[:, BLOCK:]
    if resampler is not None:
        held = taken(resampler.resample(None))
    while held.shape[1]:
        yield held[:, :BLOCK]
        held = held[:, BLOCK:]

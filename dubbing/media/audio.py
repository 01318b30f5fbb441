"""Speech as samples: streaming decode, exact length, and whether it can be used at all."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from dubbing.errors import AudioUnusable, NoAudioStream
from dubbing.media.limits import DEFAULT_LIMITS, Limits
from dubbing.media.opening import damage, open_input

log = logging.getLogger(__name__)

SPEECH_RATE = 16_000
"""Hz, of everything the speech networks see."""

MIN_SPEECH_SECONDS = 0.2
SILENCE_PEAK = 10 ** (-60 / 20)
"""-60 dBFS: speech whose loudest sample is below counts as silent."""

_BLOCK = 8192
"""Samples that pass the resampler at once."""

_CENTRE = {"FC"}
_FRONT = {"FL", "FR", "FLC", "FRC"}
_SILENT = {"LFE", "LFE2"}


def load_speech(
    path: str | Path, limits: Limits | None = DEFAULT_LIMITS
) -> npt.NDArray[np.float32]:
    """The first sound stream of `path` as float32 [N], mono, 16 kHz, full scale -1..1.

    Streams through the file: memory is the result alone (64 kB per second). Channels are averaged
    with weights that sum to 1 (so nothing clips and a constant stays that constant): stereo
    equally; of surround the centre counts most and the low-frequency channel nothing.

    Raises:
        InputNotFound: no such file.
        NoAudioStream: no sound stream, or nothing of it decodes.
        InputTooLarge: it is longer than `limits` allow.
    """
    out = bytearray()
    resampler: av.AudioResampler | None = None
    setup: tuple[Any, ...] | None = None
    for frame in decoded_frames(path, limits):
        current = (frame.sample_rate, frame.format.name, frame.layout.name)
        if resampler is None or current != setup:
            if resampler is not None:  # the stream changes its format: finish the old one
                _append_mono(out, resampler.resample(None))
            resampler = av.AudioResampler(
                format="flt", layout=frame.layout.name, rate=SPEECH_RATE, frame_size=_BLOCK
            )
            setup = current
        frame.pts = None  # samples are laid end to end; gaps in the time stamps are not filled
        _append_mono(out, resampler.resample(frame))
    if resampler is not None:
        _append_mono(out, resampler.resample(None))
    return np.frombuffer(out, dtype=np.float32)


def audio_duration(path: str | Path, limits: Limits | None = DEFAULT_LIMITS) -> Fraction:
    """Length of the first sound stream in seconds, exact: its decoded samples over its rate.

    Raises:
        InputNotFound, NoAudioStream, InputTooLarge: as `load_speech`.
    """
    total = Fraction(0)
    samples, rate = 0, 0
    for frame in decoded_frames(path, limits):
        if frame.sample_rate != rate:
            total += Fraction(samples, rate) if rate else 0
            samples, rate = 0, frame.sample_rate
        samples += frame.samples
    return total + (Fraction(samples, rate) if rate else 0)


def audio_start(path: str | Path) -> Fraction:
    """Time in seconds, in the file's own clock, of the first sample that is to be heard.

    Raises:
        InputNotFound, NoAudioStream: as `load_speech`.
    """
    for frame in decoded_frames(path, None):
        if frame.pts is None or frame.time_base is None:
            return Fraction(0)
        return frame.pts * frame.time_base
    return Fraction(0)


def decode_audio(path: str | Path) -> tuple[npt.NDArray[Any], int]:
    """(samples, rate): the first sound stream as decoded, [C,N] in its own sample type and rate.

    Holds the whole stream in memory; for checks, not for the dubbing path.

    Raises:
        InputNotFound, NoAudioStream: as `load_speech`.
    """
    blocks: list[npt.NDArray[Any]] = []
    rate = 0
    for frame in decoded_frames(path, None):
        rate, channels = frame.sample_rate, len(frame.layout.channels)
        if frame.format.is_planar:  # packed: PyAV miscounts the planes of eight channels
            packed = av.AudioResampler(frame.format.packed.name, frame.layout, rate)
            blocks += [b.to_ndarray().reshape(-1, channels).T for b in packed.resample(frame)]
        else:
            blocks.append(frame.to_ndarray().reshape(-1, channels).T)
    if not blocks:
        raise NoAudioStream("no sound decodes", path=path)
    return np.concatenate(blocks, axis=1), rate


def check_speech(samples: npt.NDArray[np.float32], path: str | Path | None = None) -> None:
    """Make sure that 16-kHz speech can drive a mouth.

    Raises:
        AudioUnusable: empty, shorter than 0.2 s, not finite, or below -60 dBFS throughout.
    """
    if samples.size == 0:
        raise AudioUnusable("the speech is empty", path=path)
    seconds = samples.size / SPEECH_RATE
    if seconds < MIN_SPEECH_SECONDS:
        raise AudioUnusable(
            f"the speech is {seconds:.3f} s long, at least {MIN_SPEECH_SECONDS} s are needed",
            path=path,
        )
    peak = float(max(samples.max(), -samples.min()))
    if not np.isfinite(peak):
        raise AudioUnusable("the speech holds values that are not finite", path=path)
    if peak < SILENCE_PEAK:
        level = f"{20 * np.log10(peak):.0f} dBFS" if peak > 0 else "digital silence"
        raise AudioUnusable(f"the speech is silent from end to end ({level})", path=path)


def decoded_frames(
    path: str | Path, limits: Limits | None = DEFAULT_LIMITS
) -> Iterator[av.AudioFrame]:
    """Frames of the first sound stream; damaged packets are left out with a warning.

    Raises:
        InputNotFound: no such file.
        NoAudioStream: not a media file, or no sound stream that decodes.
        InputTooLarge: it is longer than `limits` allow.
    """
    seconds = 0.0
    with open_input(path, NoAudioStream) as container:
        streams = [s for s in container.streams.audio if s.codec_context is not None]
        if not streams:
            raise NoAudioStream("the file holds no sound stream that can be decoded", path=path)
        stream = streams[0]
        damaged = decoded = 0
        try:
            for packet in container.demux(stream):
                try:
                    frames = packet.decode()
                except av.error.FFmpegError as error:
                    damaged += 1
                    log.debug("%s: a packet does not decode: %s", path, damage(error, path))
                    continue
                for frame in frames:
                    decoded += frame.samples
                    seconds += frame.samples / max(frame.sample_rate, 1)
                    if limits is not None:
                        limits.check_time(seconds, path)
                    yield frame
        except av.error.FFmpegError as error:
            log.warning("%s: the file breaks off: %s", path, damage(error, path))
        if damaged:
            log.warning("%s: %d damaged sound packet(s) left out", path, damaged)
            if not decoded:
                raise NoAudioStream("no sound decodes", path=path)


def _append_mono(out: bytearray, frames: list[av.AudioFrame]) -> None:
    for frame in frames:  # packed: PyAV miscounts the planes of eight channels
        weights = _channel_weights(frame)
        block = np.asarray(frame.to_ndarray(), dtype=np.float32).reshape(-1, weights.size)
        out += (block @ weights).astype(np.float32).tobytes()


def _channel_weights(frame: av.AudioFrame) -> npt.NDArray[np.float32]:
    """[C] weights that sum to 1."""
    names = [channel.name for channel in frame.layout.channels]
    raw = np.array([_weight(name) for name in names])
    if len(names) <= 2 or raw.sum() == 0:
        raw = np.ones(len(names))
    return np.asarray(raw / raw.sum(), dtype=np.float32)


def _weight(name: str) -> float:
    if name in _SILENT:
        return 0.0
    if name in _CENTRE:
        return 1.0
    return 0.5 if name in _FRONT else 0.35

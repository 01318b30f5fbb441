"""Speech tracks added in step, at their own level, without clipping."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from media_samples import make_audio, tone

from dubbing.errors import NoAudioStream, OptionInvalid
from dubbing.media.audio import decode_audio
from dubbing.media.mixing import BLOCK, CEILING, mix_speech


def full_scale(path: Path) -> tuple[np.ndarray, int]:
    """Samples [C, N] of a 24-bit file, -1..1, and their rate."""
    samples, rate = decode_audio(path)
    return samples.astype(np.float64) / 2**31, rate


def test_the_sum_is_exact_and_as_long_as_the_longest(tmp_path: Path) -> None:
    count = 2 * BLOCK + 777
    long, short = tone(count / 16000, 16000, seed=1), tone(0.4, 16000, seed=2)
    paths = [make_audio(tmp_path / f"{k}.wav", "pcm_s16le", s, 16000)
             for k, s in enumerate((long, short))]  # fmt: skip
    assert mix_speech(paths, tmp_path / "mix.wav") == 1.0
    mixed, rate = full_scale(tmp_path / "mix.wav")
    assert rate == 16000
    assert mixed.shape == (1, count)
    wanted = long[:, 0].astype(np.float64)
    wanted[: len(short)] += short[:, 0]
    assert np.abs(mixed[0] - wanted / 2**15).max() < 2e-7


def test_a_sum_that_would_clip_is_turned_down_as_a_whole(tmp_path: Path) -> None:
    loud = np.full((4000, 1), 30000, np.int16)
    quiet = np.full((8000, 1), 9000, np.int16)
    paths = [make_audio(tmp_path / f"{k}.wav", "pcm_s16le", s, 16000)
             for k, s in enumerate((loud, quiet))]  # fmt: skip
    gain = mix_speech(paths, tmp_path / "mix.wav")
    assert gain == pytest.approx(CEILING * 2**15 / 39000, rel=1e-6)
    mixed, _ = full_scale(tmp_path / "mix.wav")
    assert mixed[0, :4000].max() == pytest.approx(CEILING, abs=1e-6)
    assert mixed[0, 5000] == pytest.approx(gain * 9000 / 2**15, abs=1e-6)


def test_rates_and_layouts_meet_at_the_highest(tmp_path: Path) -> None:
    mono = make_audio(tmp_path / "mono.wav", "pcm_s16le", tone(0.5, 16000), 16000)
    stereo = make_audio(tmp_path / "s.wav", "pcm_s16le", tone(0.3, 48000, 2) // 4, 48000)
    mix_speech([mono, stereo], tmp_path / "mix.wav")
    both, rate = full_scale(tmp_path / "mix.wav")
    assert rate == 48000
    assert both.shape[0] == 2
    assert both.shape[1] == pytest.approx(24000, abs=2)
    tail = both[:, 16000:23000]  # where only the mono track sounds
    level = np.abs(decode_audio(mono)[0][0, 5334:7666] / 2**15).mean()
    assert np.abs(tail[0] - tail[1]).max() < 1e-6
    assert np.abs(tail).mean() == pytest.approx(level, rel=0.1)


def test_one_track_stays_as_it_is(tmp_path: Path) -> None:
    alone = make_audio(tmp_path / "a.wav", "pcm_s16le", tone(0.2, 8000), 8000)
    mix_speech([alone], tmp_path / "mix.wav")
    mixed, _ = full_scale(tmp_path / "mix.wav")
    assert np.array_equal(np.rint(mixed * 2**15), decode_audio(alone)[0].reshape(1, -1))


def test_what_is_no_sound_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"not a sound")
    with pytest.raises(NoAudioStream):
        mix_speech([tmp_path / "a.wav"], tmp_path / "mix.wav")
    with pytest.raises(OptionInvalid):
        mix_speech([], tmp_path / "mix.wav")
    assert not (tmp_path / "mix.wav").exists()

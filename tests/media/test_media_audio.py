from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from media_samples import make_audio, make_video, tone

from dubbing.errors import AudioUnusable, InputNotFound, NoAudioStream
from dubbing.media.audio import (
    SPEECH_RATE,
    audio_duration,
    audio_start,
    check_speech,
    decode_audio,
    load_speech,
)


def test_16_khz_mono_pcm_comes_through_unchanged(tmp_path: Path) -> None:
    samples = tone(1.3, 16000)
    path = make_audio(tmp_path / "a.wav", "pcm_s16le", samples, 16000)
    speech = load_speech(path)
    assert speech.dtype == np.float32 and speech.ndim == 1
    np.testing.assert_allclose(speech, samples[:, 0] / 32768, atol=1e-6)
    np.testing.assert_array_equal(decode_audio(path)[0], samples.T)


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_any_rate_and_layout_keeps_level_phase_and_length(
    tmp_path: Path, rate: int, channels: int
) -> None:
    count = round(1.1 * rate)
    wave = 0.4 * np.sin(np.arange(count) * 2 * np.pi * 200 / rate)
    pcm = np.repeat((wave * 32767).astype(np.int16)[:, None], channels, axis=1)
    path = make_audio(tmp_path / "a.wav", "pcm_s16le", pcm, rate)
    speech = load_speech(path)
    assert abs(speech.size - count * SPEECH_RATE / rate) <= 1
    expected = 0.4 * np.sin(np.arange(speech.size) * 2 * np.pi * 200 / SPEECH_RATE)
    inner = slice(500, speech.size - 500)
    assert np.abs(speech - expected)[inner].max() < 0.01


def test_downmix_keeps_a_constant_and_does_not_clip(tmp_path: Path) -> None:
    loud = np.full((16000, 2), 32000, np.int16)
    path = make_audio(tmp_path / "dc.wav", "pcm_s16le", loud, 16000)
    np.testing.assert_allclose(load_speech(path), 32000 / 32768, atol=1e-4)


def test_duration_counts_decoded_samples(tmp_path: Path) -> None:
    samples = tone(1.2345, 44100, 2)
    wav = make_audio(tmp_path / "a.wav", "pcm_s16le", samples, 44100)
    assert audio_duration(wav) == Fraction(samples.shape[0], 44100)
    mp3 = make_audio(tmp_path / "a.mp3", "libmp3lame", samples, 44100)
    decoded, rate = decode_audio(mp3)
    assert audio_duration(mp3) == Fraction(decoded.shape[1], rate)
    assert audio_start(wav) == 0


def test_sound_of_a_video_container_is_found(tmp_path: Path) -> None:
    path = make_audio(tmp_path / "a.mkv", "aac", tone(0.5, 48000, 2), 48000)
    assert abs(load_speech(path).size - 8000) < 1024


def test_unusable_speech_is_told_apart(tmp_path: Path) -> None:
    check_speech(load_speech(make_audio(tmp_path / "ok.wav", "pcm_s16le", tone(0.3, 16000), 16000)))
    with pytest.raises(AudioUnusable, match="empty"):
        check_speech(np.zeros(0, np.float32))
    with pytest.raises(AudioUnusable, match=r"0\.100 s"):
        check_speech(np.ones(1600, np.float32))
    with pytest.raises(AudioUnusable, match="silent"):
        check_speech(np.zeros(16000, np.float32))
    quiet = make_audio(tmp_path / "q.wav", "pcm_s16le", tone(1, 16000) // 2000, 16000)
    with pytest.raises(AudioUnusable, match="dBFS"):
        check_speech(load_speech(quiet))


def test_files_without_sound(tmp_path: Path) -> None:
    with pytest.raises(NoAudioStream):
        load_speech(make_video(tmp_path / "v.mp4", range(3)))
    with pytest.raises(InputNotFound):
        load_speech(tmp_path / "none.wav")
    text = tmp_path / "t.wav"
    text.write_text("no sound")
    with pytest.raises(NoAudioStream):
        audio_duration(text)


def test_empty_wav_is_empty_speech(tmp_path: Path) -> None:
    import wave

    path = tmp_path / "e.wav"
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(16000)
    with pytest.raises((AudioUnusable, NoAudioStream)):
        check_speech(load_speech(path))

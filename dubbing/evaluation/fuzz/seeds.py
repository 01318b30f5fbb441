"""Small good files of every kind, to be damaged."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import torch

from dubbing.evaluation.cases.clips import ClipRecipe, ffmpeg_clip, make_clip, make_sound, tone
from dubbing.evaluation.cases.extras import rich
from dubbing.evaluation.cases.registry import Bench, NotInThisBuild
from dubbing.evaluation.cases.weight_files import made_up_persona
from dubbing.models.geometry_net import GeometryNet, GeometryNetConfig
from dubbing.models.renderer import Renderer, RendererConfig
from dubbing.models.speech_encoder import SpeechEncoder, SpeechEncoderConfig
from dubbing.models.style_metric import StyleMetric, StyleMetricConfig
from dubbing.weights import (
    GEOMETRY,
    MORPHABLE,
    PACKAGED,
    RENDERER,
    SPEECH,
    STYLE_METRIC,
    load_morphable,
    save_morphable,
    save_network,
)

CLIPS: dict[str, ClipRecipe] = {
    "h264.mp4": ClipRecipe(options={"crf": "30", "g": "6", "bf": "2"}),
    "variable.mkv": ClipRecipe(pts=[0, 40, 90, 95, 300, 340], time_base=Fraction(1, 1000)),
    "hevc.mp4": ClipRecipe("libx265", "yuv420p10le", options={"x265-params": "log-level=error"}),
    "vp9.webm": ClipRecipe("libvpx-vp9", options={"crf": "40", "b": "0", "cpu-used": "8"}),
    "alpha.webm": ClipRecipe(
        "libvpx-vp9", "yuva420p", options={"crf": "40", "b": "0", "auto-alt-ref": "0"}
    ),
    "av1.mp4": ClipRecipe("libsvtav1", options={"crf": "50", "preset": "12"}),
    "mpeg4.avi": ClipRecipe("mpeg4", options={"q": "5", "bf": "2"}),
    "h264.ts": ClipRecipe(options={"crf": "30"}),
    "mpeg2.mpg": ClipRecipe("mpeg2video", options={"q": "5"}),
    "prores.mov": ClipRecipe("prores_ks", "yuva444p10le", options={"profile": "4444"}),
    "ffv1.mkv": ClipRecipe("ffv1", options={}),
    "raw.h264": ClipRecipe(options={"crf": "30"}),
    "flash.flv": ClipRecipe("flv", options={"q": "5"}),
    "still.png": ClipRecipe("png", "rgb24", options={}),
    "mjpeg.mkv": ClipRecipe("mjpeg", "yuvj420p", options={"q": "5"}),
}
SOUNDS = {
    "s.wav": ("pcm_s16le", 2), "s.flac": ("flac", 2), "s.mp3": ("libmp3lame", 2),
    "s.m4a": ("aac", 2), "s.ogg": ("libopus", 1), "s.aac": ("aac", 1), "s.mka": ("ac3", 6),
}  # fmt: skip


def media_seeds(folder: Path) -> list[Path]:
    """Good media files; encoders that are absent are left out."""
    made = []
    for name, recipe in CLIPS.items():
        frames = [0] if name == "still.png" else list(recipe.pts)[:8]
        try:
            made.append(make_clip(folder / name, replace(recipe, pts=frames)))
        except NotInThisBuild:
            continue
    for name, (codec, channels) in SOUNDS.items():
        try:
            made.append(make_sound(folder / name, codec, tone(0.4, 48000, channels), 48000))
        except NotInThisBuild:
            continue
    bench = Bench(folder)
    made += [rich(bench.fresh(), suffix) for suffix in (".mp4", ".mkv")]
    fragments = folder / "fragments.mp4"
    made.append(
        ffmpeg_clip(fragments, "-i", str(made[0]), "-c", "copy", "-movflags", "frag_keyframe")
    )
    return made


def weight_seeds(folder: Path) -> list[Path]:
    """A persona and small checkpoint files of every kind, named after their kind."""
    persona = folder / "speaker.persona"
    made_up_persona().save(persona)
    torch.manual_seed(0)
    networks = {
        SPEECH: SpeechEncoder(SpeechEncoderConfig(width=16, heads=2, ffn_width=32)),
        GEOMETRY: GeometryNet(GeometryNetConfig(width=24, heads=4, layers=1, audio_size=32)),
        RENDERER: Renderer(RendererConfig(geometry_width=8, texture_width=8, decoder_width=16)),
        STYLE_METRIC: StyleMetric(StyleMetricConfig(components=4, coupled=4, code_size=8)),
    }
    made = [persona, persona, persona]  # as often as the checkpoints together
    for kind, network in networks.items():
        made.append(folder / f"{kind}.safetensors")
        save_network(made[-1], kind, network)
    made.append(folder / f"{MORPHABLE}.safetensors")
    save_morphable(made[-1], load_morphable(PACKAGED / made[-1].name))
    return made

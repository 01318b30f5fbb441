"""Every codec on offer takes every kind of picture."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from dubbing.evaluation.cases.chain import run_chain, same_times
from dubbing.evaluation.cases.clips import ClipRecipe, ffmpeg_clip, make_clip
from dubbing.evaluation.cases.registry import Bench, Case, add, check, need_encoder
from dubbing.evaluation.cases.times import speech
from dubbing.media.encoders import encoding_losses
from dubbing.media.pixels import has_alpha
from dubbing.media.probe import require_video
from dubbing.media.reader import VideoReader
from dubbing.options import CODECS

TOPIC = "codec"
SIZE = (256, 128)
NEAR = 4.0
"""Largest difference of levels of grey; range or matrix taken for another make five and more."""

SOURCES: dict[str, tuple[str, ClipRecipe]] = {
    "8 bit, full range": (".mp4", ClipRecipe(tags=(2, 1, 1, 1))),
    "10-bit 4:2:2": (".mov", ClipRecipe("prores_ks", "yuv422p10le", options={"profile": "hq"})),
    "12-bit 4:4:4 with alpha": (
        ".mov", ClipRecipe("prores_ks", "yuva444p10le", options={"profile": "4444"}),
    ),
    "8 bit with alpha": (".mkv", ClipRecipe("ffv1", "yuva420p", options={})),
    "RGB": (".mov", ClipRecipe("png", "rgb24", options={})),
    "RGB with alpha": (".mov", ClipRecipe("png", "rgba", options={})),
    "grey": (".mkv", ClipRecipe("ffv1", "gray", options={})),
    "interlaced": (".mpg", ClipRecipe("ffv1", options={})),
}  # fmt: skip
SUFFIXES = {"libvpx-vp9": ".webm", "ffv1": ".mkv", "prores_ks": ".mov", "dnxhd": ".mov"}


def _takes(bench: Bench, codec: str) -> str:
    need_encoder(codec)
    suffix = SUFFIXES.get(codec, ".mp4")
    made_of, worst = [], 0.0
    for number, (name, (ending, recipe)) in enumerate(SOURCES.items()):
        kept = ClipRecipe(
            recipe.codec, recipe.fmt, SIZE, pts=range(4), options=recipe.options, tags=recipe.tags
        )
        source = bench.folder / f"{number}{ending}"
        if name == "interlaced":
            plain = make_clip(bench.folder / "plain.mkv", kept)
            ffmpeg_clip(source, "-i", str(plain), "-vf", "setfield=tff", "-c:v", "mpeg2video",
                        "-flags", "+ilme+ildct", "-q:v", "2")  # fmt: skip
        else:
            make_clip(source, kept)
        output = bench.folder / f"out-{number}{suffix}"
        made = run_chain(source, speech(bench, 0.3), output, codec=codec, crf=8, patch=False)
        same_times(made)
        after = require_video(output).video
        lost = encoding_losses(made.video.pix_fmt, codec, *SIZE, suffix)
        if after is not None:
            alpha = has_alpha(made.video.pix_fmt) == has_alpha(after.pix_fmt)
            said = any("alpha" in words for words in lost)
            check(alpha != said, f"{name}: alpha kept: {alpha}, reported as lost: {said}")
        off = _level_difference(source, output)
        worst = max(worst, off)
        check(off < NEAR, f"{name}: levels are {off:.1f} off")
        made_of.append(made.pix_fmt)
    return f"{', '.join(dict.fromkeys(made_of))}; {worst:.1f} of 255 off"


def _level_difference(source: Path, output: Path) -> float:
    """Largest difference of the dark, middle and bright levels of grey, 0..255."""
    worst = 0.0
    with VideoReader(source) as before, VideoReader(output) as after:
        for a, b in zip(before, after, strict=True):
            levels = [np.quantile(f.rgb().mean(-1), (0.05, 0.5, 0.95)) for f in (a, b)]
            worst = max(worst, float(np.abs(levels[0] - levels[1]).max()))
    return worst


for _codec in CODECS:
    add(Case(TOPIC, _codec, functools.partial(_takes, codec=_codec)))

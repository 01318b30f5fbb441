"""Sizes, rotation, fields, colour, bit depth: what the picture was, it stays."""

from __future__ import annotations

import functools
from dataclasses import replace
from fractions import Fraction

from dubbing.evaluation.cases.chain import (
    Chained,
    outside_difference,
    run_chain,
    same_tags,
    same_times,
)
from dubbing.evaluation.cases.clips import ClipRecipe, ffmpeg_clip, make_clip
from dubbing.evaluation.cases.registry import Bench, Case, add, case, check
from dubbing.evaluation.cases.times import speech
from dubbing.media.encoders import choose_pix_fmt, encoding_losses
from dubbing.media.pixels import layout_of
from dubbing.media.probe import require_video

TOPIC = "picture"
TURN_90 = (0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30)
"""Display matrix of a phone's portrait clip: turn clockwise by 90 degrees."""

X265 = {"crf": "10", "x265-params": "log-level=error"}
VP9 = {"crf": "20", "b": "0", "cpu-used": "8"}
AV1 = {"crf": "30", "preset": "12", "svtav1-params": "rc=0"}
PQ, HLG = (1, 9, 9, 16), (1, 9, 9, 18)
WIDE = (256, 128)
"""The smallest size that DNxHR takes."""

RECIPES: dict[str, tuple[str, ClipRecipe]] = {
    "rotated by 90 degrees": (".mp4", ClipRecipe(matrix=TURN_90)),
    "odd size 63 x 47": (".mkv", ClipRecipe("ffv1", size=(63, 47), options={})),
    "anamorphic pixels 16:11": (".mp4", ClipRecipe(sample_aspect_ratio=Fraction(16, 11))),
    "full range BT.709": (".mp4", ClipRecipe(tags=(2, 1, 1, 1))),
    "limited range BT.601": (".mp4", ClipRecipe(tags=(1, 6, 6, 6))),
    "PAL BT.470BG": (".mp4", ClipRecipe(tags=(1, 5, 5, 6))),
    "BT.2020 8 bit": (".mp4", ClipRecipe(tags=(1, 9, 9, 14))),
    "untagged colours": (".mp4", ClipRecipe(tags=(0, 2, 2, 2))),
    "10-bit H.264": (".mp4", ClipRecipe(fmt="yuv420p10le")),
    "10-bit HEVC, PQ": (".mp4", ClipRecipe("libx265", "yuv420p10le", options=X265, tags=PQ)),
    "10-bit HEVC, HLG": (".mp4", ClipRecipe("libx265", "yuv420p10le", options=X265, tags=HLG)),
    "10-bit 4:2:2 HEVC": (".mp4", ClipRecipe("libx265", "yuv422p10le", options=X265)),
    "ProRes 422 HQ": (".mov", ClipRecipe("prores_ks", "yuv422p10le", options={"profile": "hq"})),
    "DNxHR HQ": (".mov", ClipRecipe("dnxhd", "yuv422p", WIDE, options={"profile": "dnxhr_hq"})),
    "DNxHR HQX, 10 bit": (
        ".mov", ClipRecipe("dnxhd", "yuv422p10le", WIDE, options={"profile": "dnxhr_hqx"}),
    ),
    "VP9": (".webm", ClipRecipe("libvpx-vp9", options=VP9)),
    "AV1": (".mp4", ClipRecipe("libsvtav1", options=AV1)),
    "AV1, 10 bit": (".mkv", ClipRecipe("libsvtav1", "yuv420p10le", options=AV1)),
    "12-bit FFV1": (".mkv", ClipRecipe("ffv1", "yuv422p12le", options={})),
    "16-bit grey": (".mkv", ClipRecipe("ffv1", "gray16le", options={}, tags=(0, 2, 2, 2))),
    "RGB FFV1, 10 bit": (".mkv", ClipRecipe("ffv1", "gbrp10le", options={}, tags=(2, 0, 1, 13))),
}  # fmt: skip
"""Extension and recipe of each source."""


def lossless(bench: Bench, suffix: str, recipe: ClipRecipe) -> Chained:
    """A source of that kind through the chain with `--codec ffv1`."""
    source = make_clip(bench.folder / f"in{suffix}", replace(recipe, pts=range(5)))
    return run_chain(source, speech(bench, 0.3), bench.folder / "out.mkv")


def _kept(bench: Bench, suffix: str, recipe: ClipRecipe) -> str:
    made = lossless(bench, suffix, recipe)
    video = require_video(made.source).video
    made_of = "" if video is None else video.pix_fmt.replace("yuvj", "yuv")
    check(made_of.startswith(recipe.fmt[:7]), f"the source is {made_of}, not {recipe.fmt}")
    same_times(made)
    same_tags(made)
    off = outside_difference(made)
    check(off <= 1, f"{off} code values outside the mask")
    return f"{made.video.pix_fmt} -> {made.pix_fmt}: {off} of {2**made.video.bit_depth} codes off"


for _name, (_suffix, _recipe) in RECIPES.items():
    add(Case(TOPIC, _name, functools.partial(_kept, suffix=_suffix, recipe=_recipe)))


@case(TOPIC, "VP9, 10 bit, to FFV1; 8 bit VP9 is said to lose two bits")
def vp9_deep(bench: Bench) -> str:
    plain = ClipRecipe("ffv1", "yuv420p10le", options={}, pts=range(5))
    source = ffmpeg_clip(
        bench.folder / "in.webm", "-i", str(make_clip(bench.folder / "plain.mkv", plain)),
        "-c:v", "libvpx-vp9", "-profile:v", "2", "-cpu-used", "8", "-crf", "20", "-b:v", "0",
    )  # fmt: skip
    made = run_chain(source, speech(bench, 0.3), bench.folder / "out.mkv")
    check(made.video.bit_depth == 10, f"the source is {made.video.pix_fmt}")
    same_times(made)
    same_tags(made)
    off = outside_difference(made)
    check(off <= 1, f"{off} code values outside the mask")
    size = made.video.display_size
    depth = layout_of(choose_pix_fmt(made.video.pix_fmt, "libvpx-vp9", *size))
    lost = encoding_losses(made.video.pix_fmt, "libvpx-vp9", *size, ".webm")
    check(depth is not None and (depth.depth == 10) == (lost == []), f"said: {lost}")
    return f"{made.video.pix_fmt} -> {made.pix_fmt}: {off} of 1024 codes off"


@case(TOPIC, "lossless x264 (crf 0) in 8 and 10 bit, x265 and VP9")
def lossless_codecs(bench: Bench) -> str:
    worst = 0
    for fmt, codec, suffix in (
        ("yuv420p", "libx264", ".mp4"),
        ("yuv420p10le", "libx264", ".mp4"),
        ("yuv444p", "libx264", ".mp4"),
        ("yuv420p10le", "libx265", ".mp4"),
        ("yuv420p", "libvpx-vp9", ".webm"),
    ):
        source = make_clip(bench.folder / f"{fmt}.mp4", ClipRecipe(fmt=fmt, pts=range(5)))
        output = bench.folder / f"out-{fmt}-{codec}{suffix}"
        made = run_chain(source, speech(bench, 0.3), output, codec=codec, crf=0)
        check(made.pix_fmt == fmt, f"{codec} made {made.pix_fmt} of {fmt}")
        worst = max(worst, outside_difference(made))
    check(worst == 0, f"{worst} code values outside the mask")
    return "0 codes off"


@case(TOPIC, "default codec keeps tags and bit depth of HDR")
def default_codec(bench: Bench) -> str:
    for tags in (PQ, HLG):
        recipe = ClipRecipe("libx265", "yuv420p10le", options=X265, tags=tags, pts=range(5))
        source = make_clip(bench.folder / f"{tags[3]}.mp4", recipe)
        output = bench.folder / f"out-{tags[3]}.mp4"
        made = run_chain(source, speech(bench, 0.3), output, codec="libx264", crf=14)
        same_tags(made)
        after = require_video(output).video
        check(after is not None and after.bit_depth == 10, "the bit depth is gone")
    return "10 bit, BT.2020, PQ and HLG"


@case(TOPIC, "odd size with the default codec")
def odd_size(bench: Bench) -> str:
    source = make_clip(
        bench.folder / "in.mkv", ClipRecipe("ffv1", size=(63, 47), options={}, pts=range(5))
    )
    made = run_chain(source, speech(bench, 0.3), bench.folder / "out.mp4", codec="libx264")
    same_tags(made)
    check(made.pix_fmt == "yuv444p", f"{made.pix_fmt} can't hold 63 x 47")
    return "63 x 47 kept, in full chroma"


def _interlaced(bench: Bench, codec: str, suffix: str, order: str) -> str:
    plain = make_clip(bench.folder / "plain.mkv", ClipRecipe("ffv1", options={}, pts=range(8)))
    source = ffmpeg_clip(
        bench.folder / f"in{suffix}", "-i", str(plain), "-vf", f"setfield={order}", "-c:v", codec,
        "-flags", "+ilme+ildct", "-q:v", "2", "-bf", "0", "-color_range", "tv",
    )  # fmt: skip
    video = require_video(source).video
    check(video is not None and video.interlaced, "the source is not interlaced")
    figures = []
    for encoder, ending in (("ffv1", ".mkv"), ("libx264", ".mp4")):
        output = bench.folder / f"out-{encoder}{ending}"
        made = run_chain(source, speech(bench, 0.3), output, codec=encoder)
        same_tags(made)
        after = require_video(output).video
        check(after is not None and after.field_order == made.video.field_order, "fields swapped")
        figures.append(outside_difference(made))
    check(max(figures) == 0, f"{max(figures)} code values outside the mask")
    return f"{order}, 0 codes off, fields kept in ffv1 and x264"


for _codec, _suffix, _order in (
    ("mpeg2video", ".mpg", "tff"),
    ("libx264", ".mp4", "bff"),
    ("libx264", ".mp4", "tff"),
):
    add(
        Case(
            TOPIC,
            f"interlaced {_codec}, {_order}",
            functools.partial(_interlaced, codec=_codec, suffix=_suffix, order=_order),
        )
    )

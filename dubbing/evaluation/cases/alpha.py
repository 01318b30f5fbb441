"""Pictures with an alpha plane."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from dubbing.evaluation.cases.chain import outside_difference, run_chain, same_tags, same_times
from dubbing.evaluation.cases.clips import ClipRecipe, make_clip
from dubbing.evaluation.cases.pictures import VP9
from dubbing.evaluation.cases.puppets import SIZE, write_talker
from dubbing.evaluation.cases.registry import Bench, case, check
from dubbing.evaluation.cases.times import speech
from dubbing.media.encoders import encoding_losses
from dubbing.media.pixels import has_alpha
from dubbing.media.probe import require_video
from dubbing.media.reader import VideoReader
from dubbing.options import DubOptions

TOPIC = "alpha"


def prores_4444(bench: Bench) -> Path:
    """A ProRes 4444 clip with an alpha plane."""
    recipe = ClipRecipe("prores_ks", "yuva444p10le", pts=range(5), options={"profile": "4444"})
    return make_clip(bench.folder / "in.mov", recipe)


def vp9_alpha(bench: Bench) -> Path:
    """A VP9 clip with an alpha plane, as browsers show it."""
    recipe = ClipRecipe("libvpx-vp9", "yuva420p", pts=range(5), options=VP9 | {"auto-alt-ref": "0"})
    return make_clip(bench.folder / "in.webm", recipe)


def _kept(bench: Bench, source: Path, codec: str, suffix: str, exact: bool) -> str:
    before = require_video(source).video
    check(before is not None and has_alpha(before.pix_fmt), f"{source.name} is read without alpha")
    made = run_chain(source, speech(bench, 0.3), bench.folder / f"out{suffix}", codec=codec)
    after = require_video(made.output).video
    check(after is not None and has_alpha(after.pix_fmt), "alpha is gone")
    same_times(made)
    same_tags(made)
    off = outside_difference(made)
    check(off == 0 or not exact, f"{off} code values outside the mask")
    lost = encoding_losses(made.video.pix_fmt, codec, *made.video.display_size, suffix)
    check(not any("alpha" in words for words in lost), f"reported as lost: {lost}")
    return f"{made.video.pix_fmt} -> {made.pix_fmt}, {off} codes off"


@case(TOPIC, "ProRes 4444 to FFV1")
def prores_to_ffv1(bench: Bench) -> str:
    return _kept(bench, prores_4444(bench), "ffv1", ".mkv", exact=True)


@case(TOPIC, "ProRes 4444 to ProRes 4444")
def prores_to_prores(bench: Bench) -> str:
    return _kept(bench, prores_4444(bench), "prores_ks", ".mov", exact=False)


@case(TOPIC, "VP9 with alpha to FFV1")
def vp9_to_ffv1(bench: Bench) -> str:
    return _kept(bench, vp9_alpha(bench), "ffv1", ".mkv", exact=True)


@case(TOPIC, "VP9 with alpha to VP9 in WebM")
def vp9_to_vp9(bench: Bench) -> str:
    return _kept(bench, vp9_alpha(bench), "libvpx-vp9", ".webm", exact=True)


@case(TOPIC, "a codec without alpha says so")
def said_so(bench: Bench) -> str:
    for source in (prores_4444(bench), vp9_alpha(bench)):
        video = require_video(source).video
        check(video is not None, "no picture")
        if video is not None:
            for codec, suffix in (("libx264", ".mp4"), ("libvpx-vp9", ".mp4")):
                lost = encoding_losses(video.pix_fmt, codec, *video.display_size, suffix)
                check(any("alpha" in words for words in lost), f"{codec} in {suffix} is silent")
        output = bench.folder / f"{source.stem}-{source.suffix[1:]}.mp4"
        made = run_chain(source, speech(bench, 0.3), output, codec="libx264")
        check(not has_alpha(made.pix_fmt), f"x264 made {made.pix_fmt}")
        same_times(made)
    return "libx264, and VP9 in mp4, are named in the report's warnings"


@case(TOPIC, "whole dubs in several segments: alpha, a range without other tags", long=True)
def whole_dub(bench: Bench) -> str:
    talker = bench.talker
    figures = []
    for recipe, codec, suffix in (
        (ClipRecipe("ffv1", "yuva420p", options={}, tags=(2, 2, 2, 2)), "ffv1", ".mkv"),
        (ClipRecipe("ffv1", "yuva420p", options={}), "libvpx-vp9", ".webm"),
    ):
        size = (SIZE, SIZE)
        source = bench.folder / f"in-{codec}.mkv"
        write_talker(source, talker.frames, replace(recipe, size=size, pts=range(talker.frames)))
        output = bench.folder / f"out{suffix}"
        options = DubOptions(length="video", codec=codec, segment_seconds=0.3)
        report = bench.dubber.dub(source, talker.speech, output, options, talker.persona)
        before, after = require_video(source).video, require_video(output).video
        check(after is not None and has_alpha(after.pix_fmt), f"{codec}: alpha is gone")
        if before is not None and after is not None:
            check(after.color_range == before.color_range, f"{codec}: range {after.color_range}")
        with VideoReader(source) as old, VideoReader(output) as new:
            worst = max(abs(a - b) for a, b in zip(old.index.times, new.index.times, strict=True))
        check(worst <= Fraction(1, 1000), f"{codec}: a frame is {float(worst):.4f} s off")
        pieces = report.segments.count if report.segments else 0
        check(pieces > 1, f"{codec}: {pieces} segment")
        figures.append(f"{codec}: {pieces} segments")
    return ", ".join(figures)

"""HDR10's static metadata: what the source says of its light, the result says too."""

from __future__ import annotations

import functools
from fractions import Fraction
from pathlib import Path

from dubbing.evaluation.cases.chain import run_chain, same_tags
from dubbing.evaluation.cases.clips import ClipRecipe, ffmpeg_clip, make_clip
from dubbing.evaluation.cases.puppets import SIZE, write_talker
from dubbing.evaluation.cases.registry import Bench, Case, NotInThisBuild, add, case, check
from dubbing.evaluation.cases.times import speech
from dubbing.media.encoders import tag_losses
from dubbing.media.ffmpeg import writes_hdr
from dubbing.media.hdr import CHROMA_UNIT, HdrMetadata, MasteringDisplay, merged_options
from dubbing.media.probe import require_video
from dubbing.options import DubOptions

TOPIC = "HDR10"
PQ = (1, 9, 9, 16)
WIDE = (256, 128)
LIGHT = HdrMetadata(
    MasteringDisplay(
        red=(Fraction("0.68"), Fraction("0.32")),
        green=(Fraction("0.265"), Fraction("0.69")),
        blue=(Fraction("0.15"), Fraction("0.06")),
        white=(Fraction("0.3127"), Fraction("0.329")),
        darkest=Fraction("0.005"),
        brightest=Fraction(1000),
    ),
    (1000, 400),
)
"""A display with P3's primaries."""

QUIET = {"libx265": {"crf": "10", "x265-params": "log-level=error"}, "libx264": {"crf": "10"},
         "libsvtav1": {"crf": "30", "preset": "12"}}  # fmt: skip


def source_with(path: Path, codec: str, light: HdrMetadata = LIGHT) -> Path:
    """A clip whose coded pictures tell of their light."""
    options = merged_options(QUIET[codec], light.encoder_options(codec))
    recipe = ClipRecipe(codec, "yuv420p10le", WIDE, options=options, tags=PQ, pts=range(5))
    return make_clip(path, recipe)


def check_light(path: Path, wanted: HdrMetadata = LIGHT) -> None:
    """Check what a file's first picture says against `wanted`, to the unit of either spelling."""
    video = require_video(path).video
    found = video.hdr if video is not None else None
    check(found is not None, f"{path.name}: nothing is said of the light")
    if found is None or wanted.display is None:
        return
    check(found.light == wanted.light, f"{path.name}: light level {found.light}")
    display = found.display
    check(display is not None, f"{path.name}: no mastering display")
    if display is None:
        return
    for name in ("red", "green", "blue", "white"):
        pairs = zip(getattr(display, name), getattr(wanted.display, name), strict=True)
        off = max(abs(a - b) for a, b in pairs)
        check(off <= CHROMA_UNIT, f"{path.name}: {name} is {float(off):.6f} off")
    for name in ("darkest", "brightest"):
        a, b = getattr(display, name), getattr(wanted.display, name)
        check(abs(a - b) <= max(b / 100, Fraction(1, 10_000)), f"{path.name}: {name} {float(a)}")


def _carried(bench: Bench, codec: str, suffix: str) -> str:
    """From the coded pictures of HEVC into the result; the container's box where ffmpeg has one."""
    source = source_with(bench.folder / "in.mp4", "libx265")
    check_light(source)
    output = bench.folder / f"out{suffix}"
    made = run_chain(source, speech(bench, 0.3), output, codec=codec, crf=10)
    if codec == "dnxhd":  # whose pictures can't say it, and whose box ffmpeg does not fill
        after = require_video(output).video
        lost = tag_losses(made.video, after) if after else []
        check(len(lost) == 1 and "matrix 9" in lost[0], f"said of the colours: {lost}")
    else:
        same_tags(made)
    losses = LIGHT.losses(codec, writes_hdr())
    if losses:
        raise NotInThisBuild(losses[0])
    check_light(output)
    return f"mastering display and light level kept by {codec} in {suffix}"


for _codec, _suffix in (
    ("libx264", ".mp4"),
    ("libx265", ".mp4"),
    ("libx265", ".mkv"),
    ("libsvtav1", ".mkv"),
    ("libvpx-vp9", ".webm"),
    ("ffv1", ".mkv"),
    ("prores_ks", ".mov"),
    ("dnxhd", ".mov"),
):
    add(Case(TOPIC, f"to {_codec} in {_suffix}",
             functools.partial(_carried, codec=_codec, suffix=_suffix)))  # fmt: skip


@case(TOPIC, "from H.264, AV1, and a container's box alone")
def sources(bench: Bench) -> str:
    names = [source_with(bench.folder / f"{codec}.mp4", codec) for codec in QUIET]
    if writes_hdr():
        plain = make_clip(
            bench.folder / "plain.mkv",
            ClipRecipe("ffv1", "yuv420p10le", options={}, tags=PQ, pts=range(5)),
        )
        arguments = [part for name, value in LIGHT.muxer_options().items()
                     for part in (f"-{name}", value)]  # fmt: skip
        names.append(ffmpeg_clip(bench.folder / "box.mkv", *arguments, "-i", str(plain),
                                 "-c", "copy"))  # fmt: skip
    for source in names:
        check_light(source)
        output = bench.folder / f"out-{source.stem}.mp4"
        run_chain(source, speech(bench, 0.3), output, codec="libx264", crf=10, patch=False)
        check_light(output)
    return ", ".join(source.stem for source in names)


@case(TOPIC, "a source that says nothing of its light")
def silent(bench: Bench) -> str:
    recipe = ClipRecipe("libx265", "yuv420p10le", options=QUIET["libx265"], tags=PQ, pts=range(5))
    source = make_clip(bench.folder / "in.mp4", recipe)
    output = bench.folder / "out.mp4"
    run_chain(source, speech(bench, 0.3), output, codec="libx265", crf=10)
    video = require_video(output).video
    check(video is not None and video.hdr is None, "something is said of the light")
    return "nothing is made up"


@case(TOPIC, "a whole dub")
def whole_dub(bench: Bench) -> str:
    frames = 14
    options = merged_options({**QUIET["libx265"], "preset": "ultrafast"},
                             LIGHT.encoder_options("libx265"))  # fmt: skip
    source = write_talker(
        bench.folder / "in.mp4", frames,
        ClipRecipe("libx265", "yuv420p10le", (SIZE, SIZE), options=options, tags=PQ,
                   pts=range(frames)),
    )  # fmt: skip
    output = bench.folder / "out.mp4"
    wanted = DubOptions(codec="libx265", preset="ultrafast", length="video", segment_seconds=0.2)
    report = bench.dubber.dub(source, bench.talker.speech, output, wanted)
    check_light(output)
    check(report.warnings == [], f"warnings: {report.warnings}")
    return f"{report.frames_dubbed} frames in {report.segments and report.segments.count} segments"

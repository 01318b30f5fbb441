"""What stage 2 is measured by, one line of figures per clip."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dubbing.analysis import easing
from dubbing.errors import OptionInvalid
from dubbing.evaluation import pictures
from dubbing.evaluation.clips import Clip, other_speaker
from dubbing.evaluation.face_work import (
    HeldOutRenderer,
    Made,
    consecutive,
    frame_regions,
    moments_around,
    still_pixels,
)
from dubbing.evaluation.footage import Footage
from dubbing.evaluation.held_out import HeldOut, held_out_groups, spread
from dubbing.evaluation.identity import Embedding, identity_distance
from dubbing.evaluation.judges import Judges
from dubbing.evaluation.regions import CROP, Regions
from dubbing.evaluation.sheets import picture_rows, save_png
from dubbing.evaluation.studio import Studio
from dubbing.media.audio import SPEECH_RATE
from dubbing.media.planes import frame_rgb
from dubbing.media.reader import VideoReader
from dubbing.motion import REACH, Motion, merged_vertices
from dubbing.options import DubOptions
from dubbing.render.crop import cut_crop
from dubbing.stream import DubbedFrames, StreamFrame

Row = dict[str, Any]
Picture = NDArray[np.uint8]

MIN_FACE = 80.0  # px from forehead to chin: a smaller face says little about a 256-px crop
SHIFT_S = 1.0  # seconds by which the source is out of step in the baseline "unchanged"
RUN = 25  # consecutive frames of a dub whose flicker is measured
SHOWN = 6  # frames on a contact sheet
UNCHANGED, WARP, SELF = "unchanged ", "warp ", "self-dub "
"""Prefixes of columns: the source's frame of another moment, the nearest lip reference pasted by a
mesh warp, and geometry that speech made in place of tracked geometry"""


@dataclass
class FaceBench:
    """What the protocols work with.

    Attributes:
        clips: all that count; frames: targets per clip; sheets: folder for contact sheets.
        groups: chooses the references of the targets, see `held_out_groups`.
        speech: options with which stage 1 speaks.
        baselines: whether the baselines, and the look for a leak, are made too.
    """

    studio: Studio
    judges: Judges
    clips: Sequence[Clip]
    frames: int = 12
    sheets: Path | None = None
    note: Callable[[str], None] = field(default=lambda text: None)
    groups: Callable[..., list[HeldOut]] = held_out_groups
    speech: DubOptions | None = None
    baselines: bool = True


@dataclass(frozen=True)
class Target:
    """One frame to make: its truth [256, 256, 3], regions, and the features of its judges."""

    frame: int
    truth: Picture
    regions: Regions
    features: list[Tensor] | None
    mouth: list[Tensor] | None


def held_out(bench: FaceBench, clip: Clip, self_dub: bool = True) -> Row:
    """Reconstruction with tracked geometry and, where `self_dub`, with geometry from the clip's
    own sound, beside both baselines; no reference within 5 frames of what is made.

    Raises:
        DubbingError: the clip can't be prepared or is too short.
        OptionInvalid: its face is too small.
    """
    studio = bench.studio
    footage, persona = Footage.of(studio, clip), studio.persona(clip)
    side = footage.face_side
    if side < MIN_FACE:
        raise OptionInvalid(f"{clip.name}: its face of {side:.0f} px is too small to judge")
    targets = spread(footage.usable, bench.frames)
    groups = bench.groups(studio.model, footage.speaker, footage.usable, targets)
    rate = _rate(footage)
    later = {t: _shifted(t, footage.usable, round(SHIFT_S * rate)) for t in targets}
    footage.read({*later.values(), *(f for g in groups for f in g.frames)})
    motion = own_motion(studio, clip, bench.speech) if self_dub else None
    figures = _Figures(bench.judges)
    shown: dict[str, list[Picture]] = {}
    for group in groups:
        renderer = HeldOutRenderer(studio.dubber, persona, footage, group)
        for frame in group.targets:
            target = _target(bench.judges, footage, frame)
            tracked = footage.displacements(moments_around(footage, frame))
            hidden = renderer.hidden_source(frame, target.regions)
            made = renderer.make(frame, tracked, hidden)
            figures.add("", target, made)
            if bench.baselines and not figures.leak:
                grey = renderer.hidden_source(frame, target.regions, grey=True)
                figures.leak.append(_change(made, renderer.make(frame, tracked, grey)))
            warped = renderer.mesh_warp(frame, footage.displacement(frame), made)
            if bench.baselines:
                figures.add(WARP, target, warped)
                figures.add(UNCHANGED, target, replace(made, picture=footage.crop(later[frame])))
            dubbed = made
            if motion is not None:
                moved = _merged(studio, footage, frame, motion)
                dubbed = renderer.make(frame, moved, hidden)
                figures.add(SELF, target, dubbed)
            figures.identify(footage, target, made, dubbed)
            reference = footage.crop(renderer.nearest_lips(footage.displacement(frame)))
            _collect(shown, target, reference, warped.picture, made, dubbed)
    if bench.sheets is not None:
        _draw(bench.sheets / f"{clip.path.stem}.png", shown)
    row: Row = {"clip": clip.name, "speaker": clip.speaker, "frames": len(targets)}
    return row | {"face px": round(side), **figures.row()}


def dubbed_run(bench: FaceBench, clip: Clip) -> Row:
    """Flicker, seam and presence of the face in 25 consecutive frames dubbed, exactly as the
    engine dubs them, with another speaker's sound.

    Raises:
        DubbingError: the clip can't be prepared.
    """
    studio = bench.studio
    footage, persona = Footage.of(studio, clip), studio.persona(clip)
    frames = consecutive(footage, RUN)
    motion = studio.motion(other_speaker(bench.clips, clip).samples, persona)
    source: list[Picture] = []
    made: list[Picture] = []
    with VideoReader(clip.path) as reader:
        times = [float(t) for t in reader.index.times]
        engine = DubbedFrames(
            studio.dubber.session(persona), studio.dubber.lower, motion, footage.speaker,
            easing(footage.speaker.reasons, reader.index.count),
        )  # fmt: skip
        decoded = list(reader.read_range(frames[0], frames[-1] + 1))
        start = time.perf_counter()
        done = list(engine.run(StreamFrame(f.index, f, times[f.index]) for f in decoded))
        seconds = time.perf_counter() - start
        footage.size[:] = decoded[0].size
        footage.times[:] = times
        for before, after in zip(decoded, done, strict=True):
            box = footage.boxes[before.index]
            source.append(cut_crop(before.rgb(), box, CROP))
            made.append(cut_crop(frame_rgb(after.frame, before.rotation), box, CROP))
    moved = [_merged(studio, footage, f, motion)[REACH] for f in frames]
    tracked = [footage.points(f) for f in frames]
    shaped = [footage.points(f, d) for f, d in zip(frames, moved, strict=True)]
    still = still_pixels(studio.model, tracked, shaped, pictures.STILL)
    found = pictures.flicker(made, source, still)
    row: Row = {"clip": clip.name, "speaker": clip.speaker, "frames": len(frames)}
    row["flicker"] = None if found is None else found[0] / max(found[1], 1e-6)
    row["flicker, ours"] = None if found is None else found[0]
    row["flicker, source"] = None if found is None else found[1]
    row["still pixels"] = 0 if found is None else found[2]
    faces = [(bench.judges.sees_face(a), bench.judges.sees_face(b))
             for a, b in zip(source, made, strict=True)]  # fmt: skip
    row["faces"] = sum(a for a, _ in faces)
    row["faces found"] = sum(a and b for a, b in faces)
    row["frames per second"] = len(frames) / seconds
    return row


class _Figures:
    """Figures of every made frame of a clip, by system."""

    def __init__(self, judges: Judges):
        self._judges = judges
        self._found: dict[str, list[float]] = {}
        self._gradients: dict[str, list[tuple[float, float]]] = {}
        self._real: list[Embedding] = []
        self._made: dict[str, list[Embedding]] = {"": [], SELF: []}
        self._faces: dict[str, list[bool]] = {}
        self.leak: list[float] = []

    def add(self, system: str, target: Target, made: Made) -> None:
        """Compare one frame of one system with the truth."""
        truth, picture, regions = target.truth, made.picture, target.regions
        pasted = made.alpha > 0.5
        values: dict[str, float | None] = {
            "psnr": pictures.psnr(picture, truth, regions.lower),
            "ssim": pictures.ssim(picture, truth, regions.lower),
            "psnr lips": pictures.psnr(picture, truth, regions.lips),
            "psnr pasted": pictures.psnr(picture, truth, pasted),
            "sharp mouth": pictures.sharpness_ratio(picture, truth, _box(regions.mouth)),
            "sharp cheeks": pictures.sharpness_ratio(picture, truth, regions.cheeks),
        }
        meter = self._judges.perceptual
        if meter is not None and target.features is not None and target.mouth is not None:
            values["st-lpips"] = meter.distance(meter.features(picture), target.features)
            mouth = _around_mouth(picture, regions.mouth)
            values["st-lpips mouth"] = meter.distance(meter.features(mouth), target.mouth)
        if system in ("", SELF):
            values["colour"] = pictures.border_colour(picture, truth, made.alpha)
            gradients = pictures.border_gradients(picture, truth, made.alpha)
            if gradients is not None:
                self._gradients.setdefault(system, []).append(gradients)
            if self._judges.sees_face(truth):  # of some crops it sees none in the truth either
                self._faces.setdefault(system, []).append(self._judges.sees_face(picture))
        for name, value in values.items():
            if value is not None:
                self._found.setdefault(f"{system}{name}", []).append(value)

    def identify(self, footage: Footage, target: Target, made: Made, dubbed: Made) -> None:
        """Embed one frame of ours and the real one."""
        points = footage.points(target.frame)
        real = self._judges.embedding(target.truth, points)
        ours = self._judges.embedding(made.picture, points)
        spoken = self._judges.embedding(dubbed.picture, points)
        if real is not None and ours is not None and spoken is not None:
            self._real.append(real)
            self._made[""].append(ours)
            self._made[SELF].append(spoken)

    def row(self) -> Row:
        """Means over the frames; medians of what is a ratio of sharpness."""
        row: Row = {
            name: (median if "sharp" in name else fmean)(values)
            for name, values in self._found.items()
        }
        for system, pairs in self._gradients.items():
            row[f"{system}gradient"] = fmean(a for a, _ in pairs) / fmean(b for _, b in pairs)
        for system, seen in self._faces.items():
            row[f"{system}faces"] = fmean(seen)
        return row | self._identity() | {"leak": max(self.leak, default=None)}

    def _identity(self) -> Row:
        """Distance of ours to real frames half the clip away, in that of real frames so far
        apart; and the distance to the very frame."""
        half = len(self._real) // 2
        if half == 0:
            return {}
        away = self._real[half:] + self._real[:half]
        between = fmean(map(identity_distance, self._real, away))
        row: Row = {"identity, real frames": between}
        for system, made in self._made.items():
            row[f"{system}identity"] = fmean(map(identity_distance, made, away)) / between
            row[f"{system}identity, same frame"] = fmean(map(identity_distance, made, self._real))
        return row


def _target(judges: Judges, footage: Footage, frame: int) -> Target:
    truth, regions = footage.crop(frame), frame_regions(footage, frame)
    meter = judges.perceptual
    if meter is None:
        return Target(frame, truth, regions, None, None)
    mouth = meter.features(_around_mouth(truth, regions.mouth))
    return Target(frame, truth, regions, meter.features(truth), mouth)


def _change(a: Made, b: Made) -> float:
    """Largest difference of two crops in code values."""
    return float(np.abs(a.picture.astype(np.int16) - b.picture).max())


def _rate(footage: Footage) -> float:
    with VideoReader(footage.path) as reader:
        return float(reader.video.average_rate or 25)


def _shifted(frame: int, usable: Sequence[int], by: int) -> int:
    """The usable frame nearest to `by` frames later, or earlier where the clip ends before."""
    wanted = frame + by if frame + by <= usable[-1] else frame - by
    return min(usable, key=lambda f: abs(f - wanted))


def own_motion(studio: Studio, clip: Clip, options: DubOptions | None = None) -> Motion:
    """Motion of the clip's own sound, on the clock of its pictures."""
    samples = clip.samples
    if clip.sound_offset > 0:  # the motion's clock starts with the first picture
        samples = np.pad(samples, (round(clip.sound_offset * SPEECH_RATE), 0))
    return studio.motion(samples, studio.persona(clip), options)


def _merged(studio: Studio, footage: Footage, frame: int, motion: Motion) -> Tensor:
    """The made displacements [J, V, 3] of the moments around a frame, its own in the middle, with
    the source's upper face."""
    lower = motion.around(footage.times[frame])
    beta = footage.beta(frame).expand(len(lower), -1)
    return merged_vertices(studio.model, beta, studio.dubber.lower, lower)


def _box(place: tuple[int, int, int, int]) -> NDArray[np.bool_]:
    mask = np.zeros((CROP, CROP), bool)
    mask[place[0] : place[1], place[2] : place[3]] = True
    return mask


def _around_mouth(picture: Picture, place: tuple[int, int, int, int]) -> Picture:
    """A part [80, 112, 3] of the crop around the middle of the mouth."""
    y, x = (place[0] + place[1]) // 2, (place[2] + place[3]) // 2
    top = min(max(y - 40, 0), CROP - 80)
    left = min(max(x - 56, 0), CROP - 112)
    return picture[top : top + 80, left : left + 112]


def _collect(
    shown: dict[str, list[Picture]], target: Target, reference: Picture, warped: Picture,
    made: Made, dubbed: Made,
) -> None:  # fmt: skip
    columns = {
        "nearest ref": reference, "warped ref": warped, "ours, tracked": made.picture,
        "ours, self-dub": dubbed.picture, "truth": target.truth,
    }  # fmt: skip
    for name, picture in columns.items():
        shown.setdefault(name, []).append(picture)
        close = _around_mouth(picture, target.regions.mouth)
        shown.setdefault(f"{name} mouth", []).append(close.repeat(2, 0).repeat(2, 1))
    shown.setdefault("titles", []).append(np.array(target.frame))


def _draw(path: Path, shown: dict[str, list[Picture]]) -> None:
    numbers = [int(n) for n in shown["titles"]]
    picked = sorted({round(k) for k in np.linspace(0, len(numbers) - 1, SHOWN)})
    names = sorted((n for n in shown if n != "titles"), key=lambda n: n.endswith("mouth"))
    rows = [(name, [shown[name][k] for k in picked]) for name in names]
    path.parent.mkdir(parents=True, exist_ok=True)
    save_png(path, picture_rows(rows, [f"frame {numbers[k]}" for k in picked]))

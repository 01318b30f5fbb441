"""Figures of one finished video: beside its source, and beside the truth where there is one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dubbing.errors import MediaFailed, OptionInvalid
from dubbing.evaluation import pictures
from dubbing.evaluation.case_audio import CaseSpeech
from dubbing.evaluation.clips import Clip
from dubbing.evaluation.closures import CLOSED, span_of
from dubbing.evaluation.curves import MIN_COMMON, LipCurve, correlation
from dubbing.evaluation.face_work import consecutive, frame_regions, still_pixels
from dubbing.evaluation.faces import FaceMotion, vertex_motion
from dubbing.evaluation.footage import Box, Footage
from dubbing.evaluation.held_out import spread
from dubbing.evaluation.landmarks68 import Points as Points68
from dubbing.evaluation.landmarks68 import lip_error
from dubbing.evaluation.lips import inside, lip_agreement, lip_closures, lip_distance
from dubbing.evaluation.mouth_crops import cut_mouth, mouth_places, nearest_frames
from dubbing.evaluation.paste_mask import changed_share
from dubbing.evaluation.protocol_file import Case
from dubbing.evaluation.protocol_names import SELF, SILENCE
from dubbing.evaluation.regions import CROP
from dubbing.evaluation.silence import EASE_S
from dubbing.evaluation.studio import Studio
from dubbing.evaluation.style import style_code, style_similarity
from dubbing.evaluation.sync import score_crops, sync_audio
from dubbing.evaluation.syncnet import face_places, face_square
from dubbing.evaluation.video_judges import VideoJudges
from dubbing.face.detector import FaceBox
from dubbing.face.landmarks import landmark_box
from dubbing.media.audio import SPEECH_RATE, load_speech
from dubbing.media.reader import DecodedFrame, VideoReader
from dubbing.motion import RATE

Row = dict[str, Any]
Picture = NDArray[np.uint8]

RUN = 25  # consecutive frames whose flicker is measured
MIN_FACES = 0.95  # of a result's frames
SHORT_S = 0.2  # a result may end so much before the speech


@dataclass(frozen=True)
class Subject:
    """A real video that results are compared with: a case's source, or its truth."""

    studio: Studio
    clip: Clip

    @cached_property
    def footage(self) -> Footage:
        found = Footage.of(self.studio, self.clip)
        with VideoReader(self.clip.path) as reader:
            found.times[:] = [float(t) for t in reader.index.times]
        return found

    @cached_property
    def motion(self) -> FaceMotion:
        """Its face over time, free of head pose."""
        return face_motion(self.footage)


@dataclass(frozen=True)
class Judged:
    """What came of one result.

    Attributes:
        row: figures by name; curve: its lips over time; made, real: features [N, D] for the
            Fréchet distance, None without the network; notes: what could not be measured.
    """

    row: Row
    curve: LipCurve
    made: NDArray[np.float64] | None
    real: NDArray[np.float64] | None
    notes: list[str]


def _attempt(measure: Callable[[], Row], notes: list[str]) -> Row:
    """Figures, or a note that the clip does not show enough for them."""
    try:
        return measure()
    except OptionInvalid as error:
        notes.append(str(error))
        return {}


def face_motion(footage: Footage) -> FaceMotion:
    """The face of a tracked video with known times."""
    frames = footage.usable
    rows = [footage.row(f) for f in frames]
    vertices = footage.model.vertices(footage.template, footage.speaker.fit.beta[rows])
    return FaceMotion(np.array([footage.times[f] for f in frames]), vertices)


class CaseJudge:
    """Judges the results of one case.

    Args:
        source: what was dubbed; truth: how the lips really moved, None where nobody knows.
        style: a real clip of the speaker, another one than the source where there is one.
        speech: what it was dubbed with.
        frames: pictures per result that are looked at closely.
    """

    def __init__(
        self, case: Case, source: Subject, truth: Subject | None, style: Subject,
        speech: CaseSpeech, judges: VideoJudges, frames: int,
    ):  # fmt: skip
        self.case, self.source, self.truth = case, source, truth
        self.style, self.speech, self.judges, self.frames = style, speech, judges, frames

    def judge(self, video: Path, real: bool = False) -> Judged:
        """Figures of a result.

        Args:
            real: it is the truth itself: it need not be as long as the speech, and its picture is
                compared with the source's only where both are one video.

        Raises:
            DubbingError: it is no usable result: no picture, no sound, too short, no face.
        """
        load_speech(video)  # it carries sound
        made = Footage.tracked(video, self.judges.model, self.source.footage.template)
        length = made.times[-1] + (made.times[-1] - made.times[0]) / max(len(made.times) - 1, 1)
        if not real and length < self.speech.seconds - SHORT_S:
            raise MediaFailed(
                f"{length:.2f} s long, the speech {self.speech.seconds:.2f} s", path=video
            )
        share = len(made.usable) / len(made.times)
        if not real and share < MIN_FACES * self._face_share():
            raise MediaFailed(f"a face in {share:.0%} of its frames only", path=video)
        notes: list[str] = []
        motion = face_motion(made)
        row: Row = {"seconds": length}
        if self.truth is not None:
            row |= _attempt(partial(self._lips, self.truth.motion, motion), notes)
        if self.case.protocol == SILENCE:
            row |= self._silence(motion.curve)
        else:
            row |= _attempt(partial(self._style, motion), notes)
        looked = _Looks(self, made, video)
        beside = not real or self.case.protocol == SELF
        row |= looked.figures() if beside else {}
        if self.case.protocol != SILENCE:
            row |= _attempt(looked.sync, notes)
        features = looked.features() if beside else (None, None)
        return Judged(row, motion.curve, *features, notes)

    def _face_share(self) -> float:
        source = self.source.footage
        return len(source.usable) / max(len(source.times), 1)

    def _lips(self, truth: FaceMotion, made: FaceMotion) -> Row:
        found = lip_agreement(truth, made)
        closed = lip_closures(truth, made)
        return {
            "opening": found.opening, "width": found.width, "jaw": found.jaw,
            "amplitude": found.amplitude, "lag": found.lag,
            "closures": closed.share, "false closures": closed.false_share,
            "lmd": 100 * lip_distance(truth, made),
        }  # fmt: skip

    def _silence(self, made: LipCurve) -> Row:
        """Open mouths and the source's old words in digital silence."""
        source = self.source.motion.curve
        low, size = span_of(source.opening)
        spans = [(a + EASE_S, b - EASE_S) for a, b in self.speech.silences]
        within = inside(made.times, spans)
        if not within.any() or size <= 0:
            return {}
        open_ = made.opening[within] > low + CLOSED * size
        theirs = source.at(made.times).opening
        known = within & np.isfinite(theirs)
        row: Row = {"leak": float(open_.mean())}
        if known.sum() >= MIN_COMMON:
            row["leak r"] = correlation(theirs[known], made.opening[known])
        return row

    def _style(self, made: FaceMotion) -> Row:
        encoder = self.judges.style
        if encoder is None:
            return {}
        codes = []
        for motion in (self.style.motion, made):
            template = (self.style if motion is not made else self.source).footage.template
            start = float(motion.times[0])
            count = int((motion.times[-1] - start) * RATE) + 1
            moved, known = vertex_motion(motion, template, encoder.lower, start, count)
            codes.append(style_code(encoder, moved, known))
        return {"style": style_similarity(*codes)}


class _Looks:
    """Pictures of a result, read in one pass, beside those of the source at equal times."""

    def __init__(self, judge: CaseJudge, made: Footage, video: Path):
        self.judge, self.made = judge, made
        source = judge.source.footage
        self.match = _matched(made, source)
        both = [f for f in made.usable if self.match.get(f) in set(source.usable)]
        if len(both) < 2:
            raise MediaFailed("no frame of the source's first pass shows a face", path=video)
        self.picked = spread(both, judge.frames)
        self.run = [f for f in consecutive(made, RUN) if f in set(both)]
        shown = sorted({*self.picked, *self.run})
        self.boxes = self._boxes(video, shown)
        self._mouths: dict[int, Picture] = {}
        self._squares: dict[int, Picture] = {}
        self._times = list(made.times)
        self._places = self._mouth_places()
        made.read(shown, self.boxes, self._each)
        source.read({self.match[f] for f in shown})

    def _boxes(self, video: Path, frames: list[int]) -> dict[int, Box]:
        """The source's crops in the result's own pixels."""
        source = self.judge.source.footage
        with VideoReader(video) as made, VideoReader(source.path) as given:
            scale = made.video.display_size[0] / given.video.display_size[0]
        return {f: source.boxes[self.match[f]] * np.float32(scale) for f in frames}

    def _mouth_places(self) -> dict[int, tuple[NDArray[np.float32], NDArray[np.float64]]]:
        """Where mouth and face are cut for the sync experts, by frame."""
        made = self.made
        frames = made.usable
        rows = [made.row(f) for f in frames]
        points = made.vertices[rows].numpy()
        mouths = mouth_places(points, np.stack([made.boxes[f] for f in frames]))
        faces = [landmark_box(p) for p in points]
        squares = face_places(np.array([[b.x0, b.y0, b.x1, b.y1] for b in faces]))
        return {f: (mouths[k], squares[k]) for k, f in enumerate(frames)}

    def _each(self, frame: DecodedFrame) -> None:
        if frame.index in self._places:
            mouth, square = self._places[frame.index]
            rgb = frame.rgb()
            self._mouths[frame.index] = cut_mouth(rgb, mouth)
            if self.judge.judges.lse is not None:
                self._squares[frame.index] = face_square(rgb, square)

    def figures(self) -> Row:
        """Everything that is seen in pictures."""
        row = self._crops()
        row |= self._seam()
        return row | self._flicker()

    def features(self) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | None]:
        """Features of the made and of the real crops."""
        encoder = self.judge.judges.frechet
        if encoder is None:
            return None, None
        made = [encoder.encode(self._made(f)) for f in self.picked]
        real = [encoder.encode(self._real(f)) for f in self.picked]
        return np.stack(made), np.stack(real)

    def _made(self, frame: int) -> Picture:
        return self.made.regions[frame].crop(self.boxes[frame])

    def _real(self, frame: int) -> Picture:
        """The source's crop at the time of a frame of the result."""
        return self.judge.source.footage.crop(self.match[frame])

    def _crops(self) -> Row:
        judges, source = self.judge.judges, self.judge.source.footage
        found: dict[str, list[float]] = {}

        def add(**values: float | None) -> None:
            for name, value in values.items():
                if value is not None:
                    found.setdefault(name.replace("_", " "), []).append(value)

        everything = np.ones((CROP, CROP), bool)
        for frame in self.picked:
            made, real = self._made(frame), self._real(frame)
            regions = frame_regions(source, self.match[frame])
            mouth = np.zeros((CROP, CROP), bool)
            mouth[slice(*regions.mouth[:2]), slice(*regions.mouth[2:])] = True
            add(
                sharp_mouth=pictures.sharpness_ratio(made, real, mouth),
                sharp_cheeks=pictures.sharpness_ratio(made, real, regions.cheeks),
                csim=self._csim(frame, made, real),
            )
            if self.judge.case.protocol == SELF:
                add(
                    psnr_face=pictures.psnr(made, real, everything),
                    psnr_lower=pictures.psnr(made, real, regions.lower),
                    ssim_face=pictures.ssim(made, real, everything),
                    ssim_lower=pictures.ssim(made, real, regions.lower),
                )
                meter = judges.pictures.perceptual
                if meter is not None:
                    found.setdefault("st-lpips", []).append(meter.between(made, real))
        row: Row = {
            name: float((np.median if "sharp" in name else np.mean)(values))
            for name, values in found.items()
        }
        return row | self._landmarks()

    def _csim(self, frame: int, made: Picture, real: Picture) -> float | None:
        source = self.judge.source.footage
        points = source.points(self.match[frame])
        a = self.judge.judges.pictures.embedding(made, points)
        b = self.judge.judges.pictures.embedding(real, points)
        if a is None or b is None:
            return None
        return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))

    def _landmarks(self) -> Row:
        """LMD by the independent detector, at the moments of the picked frames."""
        truth = self.judge.truth
        if truth is None:
            return {}
        real = truth.footage
        near = {f: _nearest(self._times[f], real.times) for f in self.picked}
        pairs = {f: k for f, k in near.items() if k in set(real.usable)}
        missing = {k for k in pairs.values() if k not in real.regions}
        if missing:
            real.read(missing)
        errors = []
        for frame, k in pairs.items():
            a = self._points68(real.crop(k), real.points(k))
            seen = self._made(frame)
            box = self.boxes[frame]
            own = self.made.vertices[self.made.row(frame)].numpy()
            shifted = (own - np.array([box[0], box[1], 0], np.float32)) * (CROP / box[2])
            b = self._points68(seen, shifted)
            if a is not None and b is not None:
                errors.append(lip_error(a, b))
        return {"lmd 68": 100 * float(np.mean(errors))} if errors else {}

    def _points68(self, crop: Picture, points: NDArray[np.float32]) -> Points68 | None:
        box = landmark_box(points)
        return self.judge.judges.landmarks.find(crop, FaceBox(box.x0, box.y0, box.x1, box.y1))

    def _seam(self) -> Row:
        pairs = [(self._made(f), self._real(f)) for f in self.picked]
        alpha = changed_share(pairs)
        if alpha is None:  # nothing was changed
            return {"seam gradient": 1.0, "seam colour": 0.0}
        gradients = [pictures.border_gradients(made, real, alpha) for made, real in pairs]
        colours = [pictures.border_colour(made, real, alpha) for made, real in pairs]
        row: Row = {}
        if known := [g for g in gradients if g is not None]:
            row["seam gradient"] = sum(a for a, _ in known) / max(sum(b for _, b in known), 1e-6)
        if steps := [c for c in colours if c is not None]:
            row["seam colour"] = float(np.mean(steps))
        return row

    def _flicker(self) -> Row:
        if len(self.run) < 5 or np.any(np.diff([self.match[f] for f in self.run]) != 1):
            return {}  # another frame rate: neighbours are not neighbours in the source
        source = self.judge.source.footage
        tracked = [source.points(self.match[f]) for f in self.run]
        own = []
        for frame in self.run:
            box, points = self.boxes[frame], self.made.vertices[self.made.row(frame)].numpy()
            shifted = (points - np.array([box[0], box[1], 0], np.float32)) * (CROP / box[2])
            own.append(shifted.astype(np.float32))
        still = still_pixels(source.model, tracked, own, pictures.STILL)
        made, real = [self._made(f) for f in self.run], [self._real(f) for f in self.run]
        found = pictures.flicker(made, real, still)
        return {} if found is None else {"flicker": found[0] / max(found[1], 1e-6)}

    def sync(self) -> Row:
        """Scores of the sync experts.

        Raises:
            OptionInvalid: too short a clip.
        """
        judges = self.judge.judges
        frames = sorted(self._mouths)
        times = np.array([self._times[f] for f in frames])
        nearest, usable = nearest_frames(times)
        samples = self.judge.speech.samples[: round(len(nearest) / RATE * SPEECH_RATE)]
        row: Row = {}
        if judges.sync is not None:
            crops = np.stack([self._mouths[frames[k]] for k in nearest.tolist()])
            audio = sync_audio(judges.speech, torch.from_numpy(samples), len(nearest)).cpu()
            found = score_crops(
                judges.sync, audio, torch.from_numpy(crops), torch.from_numpy(usable)
            )
            row |= {"sync conf": found.confidence, "sync dist": found.distance,
                    "sync offset": found.offset}  # fmt: skip
        if judges.lse is not None:
            squares = np.stack([self._squares[frames[k]] for k in nearest.tolist()])
            lse = judges.lse.score(squares, samples)
            row |= {"lse-c": lse.confidence, "lse-d": lse.distance, "lse offset": lse.offset}
        return row


def _matched(made: Footage, source: Footage) -> dict[int, int]:
    """{frame of the result: frame of the source} of the first pass: nearest in time, within half
    a frame's duration."""
    step = float(np.median(np.diff(source.times))) if len(source.times) > 1 else 0.04
    times = np.array(source.times)
    found = {}
    for frame, time in enumerate(made.times):
        k = _nearest(time, source.times)
        if abs(times[k] - time) <= 0.5 * step + 1e-6:
            found[frame] = k
    return found


def _nearest(time: float, times: list[float]) -> int:
    return int(np.abs(np.array(times) - time).argmin())

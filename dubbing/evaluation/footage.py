"""A clip's tracked face and the pictures of chosen frames, read in one pass over the file."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dubbing.analysis import SpeakerTrack, choose_speaker, find_faces, fit_speaker
from dubbing.evaluation.clips import Clip
from dubbing.evaluation.regions import CROP, Mask, Points
from dubbing.evaluation.studio import Studio
from dubbing.geometry.morphable import MorphableModel
from dubbing.geometry.pose import apply_pose
from dubbing.media.reader import DecodedFrame, VideoReader
from dubbing.progress import StageProgress
from dubbing.render.crop import SIDE_SCALE, crop_boxes, cut_crop
from dubbing.track_facts import track_of

Picture = NDArray[np.uint8]
Box = NDArray[np.float32]


@dataclass(frozen=True)
class Region:
    """A rectangle of a frame: pixels [h, w, 3] uint8 RGB and its corner (x, y) there."""

    pixels: Picture
    origin: tuple[int, int]

    def crop(self, box: Box) -> Picture:
        """The face crop [256, 256, 3] of `box` (left, top, side) in frame pixels."""
        moved = box - np.array([*self.origin, 0], np.float32)
        return cut_crop(self.pixels, moved, CROP)

    def part(self, x: int, y: int, width: int, height: int) -> Region:
        """A rectangle of the frame, as far as it lies in the region."""
        left, top = max(x - self.origin[0], 0), max(y - self.origin[1], 0)
        right, bottom = x + width - self.origin[0], y + height - self.origin[1]
        corner = (left + self.origin[0], top + self.origin[1])
        return Region(self.pixels[top:bottom, left:right], corner)

    def mask(self, crop: Mask, box: Box) -> Mask:
        """A mask of the crop [256, 256] in the region's own pixels [h, w]."""
        scale = CROP / float(box[2])
        shift = [scale * (o + 0.5 - float(b)) - 0.5 for o, b in zip(self.origin, box, strict=False)]
        matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]], np.float64)
        size = (self.pixels.shape[1], self.pixels.shape[0])
        found = cv2.warpAffine(
            crop.astype(np.float32), matrix, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        )
        return found > 0.5


@dataclass(frozen=True)
class Footage:
    """A video with the geometry of its speaker.

    Attributes:
        path: the file; model: on the CPU; speaker: its track in the file.
        times: seconds since the first frame, size: (width, height), regions: pictures of the
            frames that `read` was asked for; all known after `read`.
    """

    path: Path
    model: MorphableModel
    speaker: SpeakerTrack
    times: list[float] = field(default_factory=list)
    regions: dict[int, Region] = field(default_factory=dict)
    size: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, studio: Studio, clip: Clip) -> Footage:
        """A clip as its persona knows it."""
        return cls(clip.path, studio.model, track_of(studio.persona(clip)))

    @classmethod
    def tracked(cls, path: Path, model: MorphableModel, template: Tensor | None = None) -> Footage:
        """A video whose largest face is tracked now.

        Args:
            template: [V, 3] the face's neutral shape where it is known.

        Raises:
            InputNotFound, NotAVideo: see `VideoReader`.
            NoFaceFound: no usable face.
        """
        with VideoReader(path) as reader:
            faces = find_faces(reader, StageProgress(None, "analyse", reader.estimated_frames))
            track = choose_speaker(faces, None, path)
            speaker = fit_speaker(model, faces, track, template)
            times = [float(t) for t in reader.index.times]
        return cls(path, model, speaker, times)

    @property
    def template(self) -> Tensor:
        """Neutral face [V, 3]."""
        return self.speaker.fit.template

    @cached_property
    def usable(self) -> list[int]:
        """Frames that are dubbed, in order."""
        return [f for f in sorted(self.speaker.position) if f not in self.speaker.reasons]

    @cached_property
    def vertices(self) -> Tensor:
        """Projected vertices [T, V, 3] in frame pixels, one row per row of the track."""
        fit = self.speaker.fit
        return apply_pose(self.model.vertices(fit.template, fit.beta), fit.pose)

    @cached_property
    def boxes(self) -> dict[int, Box]:
        """The crop square of every tracked frame, steady over each track."""
        found: dict[int, Box] = {}
        parts = sorted(set(self.speaker.part.values()))
        for part in parts:
            frames = sorted(f for f, p in self.speaker.part.items() if p == part)
            rows = [self.speaker.position[f] for f in frames]
            boxes = crop_boxes(self.vertices[rows].numpy())
            found |= dict(zip(frames, boxes, strict=True))
        return found

    @property
    def face_side(self) -> float:
        """Median height of the face in pixels."""
        sides = [float(self.boxes[f][2]) / SIDE_SCALE for f in self.usable]
        return float(np.median(sides))

    def row(self, frame: int) -> int:
        return self.speaker.position[frame]

    def beta(self, frame: int) -> Tensor:
        return self.speaker.fit.beta[self.row(frame)]

    def pose(self, frame: int) -> Tensor:
        return self.speaker.fit.pose[self.row(frame)]

    def displacement(self, frame: int) -> Tensor:
        """Tracked displacement [V, 3] from the template."""
        return self.model.expression_vertices(self.beta(frame)[None])[0]

    def points(self, frame: int, displacement: Tensor | None = None) -> Points:
        """Vertices [V, 3] in pixels of the frame's crop, tracked or of another displacement."""
        if displacement is None:
            vertices = self.vertices[self.row(frame)]
        else:
            vertices = self.posed(self.template + displacement, frame)
        return self.in_crop(vertices, frame)

    def posed(self, face: Tensor, frame: int) -> Tensor:
        """A canonical face [V, 3] in the pixels of a frame."""
        return apply_pose(face[None], self.pose(frame)[None])[0]

    def in_crop(self, vertices: Tensor, frame: int) -> Points:
        """Vertices [V, 3] of a frame in pixels of its crop."""
        box = self.boxes[frame]
        shifted = vertices.numpy() - np.array([box[0], box[1], 0], np.float32)
        inside: Points = (shifted * (CROP / box[2])).astype(np.float32)
        return inside

    def read(
        self,
        frames: Collection[int],
        boxes: Mapping[int, Box] | None = None,
        each: Callable[[DecodedFrame], None] | None = None,
    ) -> None:
        """Decode the file once; keep the surroundings of the face's crop in `frames`.

        Args:
            boxes: crops of these frames where they are not the face's own; each: is told of every
                frame of the file.
        """
        wanted = set(frames)
        with VideoReader(self.path) as reader:
            for frame in reader:
                if frame.index in wanted:
                    box = (boxes or self.boxes)[frame.index]
                    self.regions[frame.index] = _region(frame, box)
                if each is not None:
                    each(frame)
                self.size[:] = frame.size
            self.times[:] = [float(t) for t in reader.index.times]

    def crop(self, frame: int) -> Picture:
        """The real face crop [256, 256, 3]."""
        return self.regions[frame].crop(self.boxes[frame])

    def displacements(self, frames: list[int]) -> Tensor:
        """Tracked displacements [N, V, 3]."""
        return torch.stack([self.displacement(f) for f in frames])


def _region(frame: DecodedFrame, box: Box) -> Region:
    left, top, side = (float(v) for v in box)
    room = 4 * side / CROP + 3  # what `cut_crop` averages over, and more
    x0, y0 = max(int(left - room), 0), max(int(top - room), 0)
    x1 = min(int(left + side + room) + 1, frame.size[0])
    y1 = min(int(top + side + room) + 1, frame.size[1])
    return Region(frame.rgb_region(x0, y0, x1 - x0, y1 - y0), (x0, y0))

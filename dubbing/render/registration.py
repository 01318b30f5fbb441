"""Photometric registration: tracked geometry made to fit the pictures to a fraction of a pixel.

Landmarks are right to a pixel or so, which is enough to know where lips are and too little to copy
skin: textures that should coincide are a pixel apart, their mean is a blur, and they swim from
frame to frame. The paper tunes its geometry on landmarks only. Here the reference bank first agrees
on where every point of the mesh lies in each of its own pictures, and every other frame is then
registered to the bank: what the bank predicts for the frame is compared with the frame by dense
optical flow, and the mesh follows the flow.
"""

from __future__ import annotations

import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dubbing.geometry.pose import turn_between
from dubbing.geometry.raster import rasterize
from dubbing.models.geometry_net import VERTEX_SCALE
from dubbing.models.renderer import sample_pixels
from dubbing.render.mesh import RenderMesh
from dubbing.render.scene import WINDOW, FaceStates

NEIGHBOURS = 5  # bank pictures whose mean predicts a frame
ROUNDS = 3  # of the bank's agreement with itself
DAMPING = 0.7  # of a step of that agreement: all its pictures move at once
LEVELS = (1, 0)  # halvings of the window, coarse first
SMOOTHING = 1.5  # window pixels, of the flow before the mesh follows it
LIMIT = 8.0  # window pixels: farther off the tracker was wrong, not unsure
MARGIN = 2.0  # window pixels from the window's edge, beyond which nothing is seen
TURN_WEIGHT, SHAPE_WEIGHT = 16.0, 4.0  # of a radian and of an expression difference (VERTEX_SCALE)
STEADY = 1.0  # window pixels between a frame and those around it: more is a movement, no tremble
UNMOVED = 1.5  # window pixels: geometry that moves farther leaves its frame's own residual behind
THREADS = 2  # of a bank's agreement: a third would wait for the others' small operations

_OF_THREAD = threading.local()


def shifted(states: FaceStates, offset: Tensor) -> FaceStates:
    """States [T] with their vertices moved by offsets [T, V + R, 2] in window pixels."""
    moved = torch.cat([offset * states.window[:, None, 2:], torch.zeros_like(offset[..., :1])], -1)
    return dataclasses.replace(states, vertices=states.vertices + moved)


class Registration:
    """A reference bank that agrees with itself, to which frames of the same speaker are registered.

    All of it is on the CPU, where the flow is computed.

    Args:
        mesh: the extended mesh.
        pictures: [N, 3, 144, 192] windows in 0..1; states: their tracked geometry [N].
        known: [N, V + R, 2] what the bank agreed on before; None: it does so now.

    Attributes:
        offset: [N, V + R, 2] what was found for the bank's own pictures, in window pixels; zero on
            average over the bank, which leaves the mean of the tracker's opinions in place.
    """

    def __init__(
        self, mesh: RenderMesh, pictures: Tensor, states: FaceStates, known: Tensor | None = None
    ):
        self.mesh = mesh
        self._tracked = states
        self._levels = {level: _grey(pictures, level) for level in LEVELS}
        if known is not None:
            self.offset = known
            return
        self.offset = states.vertices.new_zeros(len(pictures), states.vertices.shape[1], 2)
        for round_ in range(ROUNDS if len(pictures) > 1 else 0):
            levels = LEVELS if round_ == 0 else LEVELS[-1:]
            find = partial(self._own, pictures, levels)
            with ThreadPoolExecutor(THREADS, "bank") as pool:
                found = list(pool.map(find, range(len(pictures))))
            step = torch.stack(found) - self.offset
            offset = self.offset + DAMPING * step
            self.offset = offset - offset.mean(0)

    @torch.inference_mode()
    def register(self, picture: Tensor, states: FaceStates) -> Tensor:
        """Where the mesh really lies in a picture.

        Args:
            picture: [1, 3, 144, 192] window in 0..1; states: its tracked geometry [1].

        Returns:
            [V + R, 2] offsets in window pixels; zero where the window's edge hides a vertex.
        """
        start = self.offset.new_zeros(self.offset.shape[1:])
        return self._found(picture, states, LEVELS, start)

    def _own(self, pictures: Tensor, levels: tuple[int, ...], k: int) -> Tensor:
        """Offsets [V + R, 2] of picture `k` of the bank, as the others see it."""
        return self._found(pictures[[k]], self._tracked[[k]], levels, self.offset[k], leave_out=k)

    def _found(
        self, picture: Tensor, states: FaceStates, levels: tuple[int, ...], start: Tensor,
        leave_out: int | None = None,
    ) -> Tensor:  # fmt: skip
        """Offsets [V + R, 2] of one picture, starting from `start`."""
        chosen, weight = self._nearest(states, leave_out)
        bank = shifted(self._tracked[chosen], self.offset[chosen])
        offset = start
        for level in levels:
            seen = _grey(picture, level)[0, 0]
            moved = shifted(states, offset[None])
            predicted = self._predicted(moved, bank, self._levels[level][chosen], weight, level)
            shown = torch.where(predicted < 0, seen, predicted)
            still = np.zeros((*seen.shape, 2), np.float32)
            flow = _dense_flow().calc(_bytes(shown), _bytes(seen), still)
            flow = cv2.GaussianBlur(flow, (0, 0), SMOOTHING / 2**level) * 2**level
            offset = offset + _at(flow, moved.in_window()[0, :, :2], level)
        return offset.clamp(-LIMIT, LIMIT)

    def _nearest(self, states: FaceStates, leave_out: int | None) -> tuple[Tensor, Tensor]:
        """The bank pictures that look most like one frame, and their weights [K]."""
        away = (self._tracked.displacement - states.displacement).norm(dim=-1).mean(1)
        turn = turn_between(self._tracked.rotation, states.rotation)
        distance = SHAPE_WEIGHT * VERTEX_SCALE * away + TURN_WEIGHT * turn
        if leave_out is not None:
            distance = distance.index_fill(0, torch.tensor([leave_out]), torch.inf)
        count = min(NEIGHBOURS, len(distance) - (leave_out is not None))
        nearest = distance.topk(count, largest=False)
        return nearest.indices, (-nearest.values).softmax(0)

    def _predicted(
        self, target: FaceStates, bank: FaceStates, grey: Tensor, weight: Tensor, level: int
    ) -> Tensor:
        """What the bank says a frame looks like: [h, w] in 0..1, -1 where no triangle lies."""
        size = (WINDOW[0] >> level, WINDOW[1] >> level)
        raster = rasterize(
            target.drawn() / 2**level, self.mesh.triangles, size, self.mesh.one_sided
        )
        places = bank.drawn()[..., :2] / 2**level
        attributes = places.permute(1, 0, 2).flatten(1)[None]
        found = torch.unflatten(raster.interpolate(attributes)[0], 0, (len(grey), 2))
        place = found.permute(0, 2, 3, 1)
        warped = sample_pixels(grey[None], place[None])[0, :, 0]
        mean = (warped * weight[:, None, None]).sum(0)
        return torch.where(raster.covered[0], mean, -1.0)


def carried(
    offset: Tensor, states: FaceStates, moved: Tensor, around: Tensor | None = None
) -> Tensor:
    """What a frame's registration says about geometry that differs from the frame's own.

    Where the geometry stays, the offset stays. Where it is replaced, what is left is the part that
    the whole face shares (an affine map: an error of the pose), while the residual of a lip
    that is no longer there has no meaning. What one frame alone tells of the shared part trembles,
    which shows as flicker of skin that is copied, so the frames around tell it together.

    Args:
        offset: [V + R, 2] of the frame, in window pixels; states: its tracked geometry [1].
        moved: [V + R] distance in window pixels between the new geometry and the tracked one.
        around: [V + R, 2] mean offset of the frame and those around it.

    Returns:
        [V + R, 2].
    """
    place = states.in_window()[0, :, :2]
    size = place.new_tensor([WINDOW[1], WINDOW[0]])
    inside = ((place > MARGIN) & (place < size - MARGIN)).all(-1, keepdim=True).float()
    basis = torch.cat([(place - size / 2) / size, torch.ones_like(place[:, :1])], -1)
    normal = basis.T @ (basis * inside) + 1e-3 * torch.eye(3).to(basis)

    def shared(offset: Tensor) -> Tensor:
        found: Tensor = basis @ torch.linalg.solve(normal, basis.T @ (offset * inside))
        return found

    affine = shared(offset)
    if around is not None:
        change = shared(around) - affine
        affine = affine + change * torch.exp(-((change.norm(dim=-1, keepdim=True) / STEADY) ** 2))
    own = torch.exp(-((moved / UNMOVED) ** 2))[:, None]
    kept: Tensor = affine + (offset - affine) * own
    return kept


def _dense_flow() -> cv2.DISOpticalFlow:
    """The flow of this thread: one has buffers of its own and serves one thread at a time."""
    if not hasattr(_OF_THREAD, "flow"):
        _OF_THREAD.flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flow: cv2.DISOpticalFlow = _OF_THREAD.flow
    return flow


def _grey(pictures: Tensor, level: int) -> Tensor:
    """[N, 3, h, w] -> [N, 1, h / 2^level, w / 2^level]."""
    grey = pictures.mean(1, keepdim=True)
    return F.avg_pool2d(grey, 2**level) if level else grey


def _bytes(grey: Tensor) -> NDArray[np.uint8]:
    """[h, w] in 0..1 as the flow's 8-bit picture."""
    return (grey * 255).round().clamp(0, 255).byte().numpy()


def _at(flow: NDArray[np.float32], place: Tensor, level: int) -> Tensor:
    """Flow [h, w, 2] at window places [V, 2]: [V, 2]; 0 near and beyond the window's edge."""
    x, y = (place.numpy().astype(np.float32) / 2**level - 0.5).T
    found = cv2.remap(
        flow, x[:, None], y[:, None], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )[:, 0]
    size = place.new_tensor([WINDOW[1], WINDOW[0]])
    inside = ((place > MARGIN) & (place < size - MARGIN)).all(-1, keepdim=True)
    return torch.from_numpy(found).to(place) * inside

"""Pictures of a face with their tracked geometry, and a bank of them that is registered."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dubbing.geometry.morphable import MorphableModel
from dubbing.render.mesh import RenderMesh, extended_vertices
from dubbing.render.registration import Registration
from dubbing.render.scene import FaceStates, face_states, face_windows
from dubbing.render.window import cut_window


@dataclass(frozen=True)
class FacePicture:
    """A frame's pixels around the face and its tracked geometry.

    Attributes:
        pixels: [H, W, 3] uint8 RGB region of the frame; origin: its (x, y) there.
        beta: [E] tracked expression; pose: [6] in frame pixels.
        offset: [V + R, 2] its registration where that is known (`RenderSession.register`); None:
            it is found from the pixels.
    """

    pixels: NDArray[np.uint8]
    origin: tuple[int, int]
    beta: Tensor
    pose: Tensor
    offset: Tensor | None = None


def registered_bank(
    model: MorphableModel, mesh: RenderMesh, template: Tensor, bank: list[FacePicture]
) -> list[FacePicture]:
    """A reference bank that knows where its meshes lie, so that no session has to find out again.

    Args:
        model, mesh, template: on the CPU.
    """
    states = [tracked_states(model, mesh, template, picture) for picture in bank]
    windows = [window_of(picture, s) for picture, s in zip(bank, states, strict=True)]
    found = Registration(mesh, torch.cat(windows), join_states(states)).offset
    return [replace(p, offset=o) for p, o in zip(bank, found, strict=True)]


def tracked_states(
    model: MorphableModel, mesh: RenderMesh, template: Tensor, picture: FacePicture
) -> FaceStates:
    """The geometry [1] that the tracker saw in a picture."""
    moved = model.expression_vertices(picture.beta[None].to(template))
    return posed_states(mesh, template, moved, picture.pose[None].to(template))


def posed_states(mesh: RenderMesh, template: Tensor, moved: Tensor, pose: Tensor) -> FaceStates:
    """States of displacements [T, V, 3] at poses [T, 6]."""
    vertices = extended_vertices(template + moved, template, pose)
    return face_states(vertices, template, moved, pose, face_windows(mesh, pose))


def window_of(picture: FacePicture, states: FaceStates) -> Tensor:
    """The window [1, 3, 144, 192] in 0..1 of a picture with the geometry [1]."""
    window = states.window[0].numpy()
    pixels = cut_window(picture.pixels, picture.origin, window)
    return to_tensor(pixels, states.vertices.device)


def to_tensor(pixels: NDArray[np.uint8], device: torch.device) -> Tensor:
    """[H, W, 3] uint8 -> [1, 3, H, W] float 0..1."""
    tensor = torch.from_numpy(np.ascontiguousarray(pixels)).to(device)
    return tensor.permute(2, 0, 1)[None].float() / 255


def join_states(states: list[FaceStates]) -> FaceStates:
    """States one after another."""
    names = [f.name for f in fields(FaceStates)]
    return FaceStates(*(torch.cat([getattr(s, name) for s in states]) for name in names))

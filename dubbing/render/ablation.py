"""What stage 2 can do without, to see what it is worth (paper table 4). A product never does."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dubbing.render.mesh import RenderMesh
from dubbing.render.registration import Registration
from dubbing.render.scene import FaceStates


@dataclass(frozen=True)
class RenderAblation:
    """Parts of a `RenderSession`; False takes one away.

    Attributes:
        face_attention: else Lip-Attention makes the whole lower face, from the lip references.
        lip_attention: else Face-Attention makes the mouth too, from the face references.
        registration: else the tracked geometry is taken as it is.
    """

    face_attention: bool = True
    lip_attention: bool = True
    registration: bool = True


FULL = RenderAblation()


class NoRegistration(Registration):
    """Believes the tracker."""

    def __init__(
        self, mesh: RenderMesh, pictures: Tensor, states: FaceStates, known: Tensor | None = None
    ):
        self.mesh = mesh
        self.offset = torch.zeros_like(states.vertices[..., :2])

    def register(self, picture: Tensor, states: FaceStates) -> Tensor:
        """Zeros [V + R, 2]."""
        return torch.zeros_like(states.vertices[0, :, :2])

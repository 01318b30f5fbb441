"""The synthetic face of the geometry tests, and the render mesh of its model."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "geometry"))

from synthetic_face import face_model

from dubbing.render.mesh import RenderMesh

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def mesh() -> RenderMesh:
    return RenderMesh.build(face_model())

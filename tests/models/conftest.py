"""The synthetic face of the geometry tests."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "geometry"))

torch.set_num_threads(1)

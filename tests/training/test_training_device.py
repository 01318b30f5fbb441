"""Both trainings on a device of their own take the steps that they take on the CPU."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from stand_in_device import CARD, stand_in_card
from test_training_runs import train_geometry, train_renderer
from torch import Tensor, nn

from dubbing.weights import MORPHABLE

STEPS = 2


class _Whole(nn.Module):
    """Wraps a network as Fabric does."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)


class _Fabric:
    """What the trainers ask of Lightning Fabric, which looks for a real card, in one process."""

    world_size, global_rank, is_global_zero = 1, 0, True

    def __init__(self, device: torch.device):
        self.device = device
        torch.manual_seed(0)

    def setup(self, network: nn.Module, optimiser: Any) -> tuple[nn.Module, Any]:
        before = list(network.parameters())
        network.to(self.device)  # the stand-in makes new parameters
        now = {id(a): b for a, b in zip(before, network.parameters(), strict=True)}
        for group in optimiser.param_groups:
            group["params"] = [now[id(parameter)] for parameter in group["params"]]
        return _Whole(network), optimiser

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def clip_gradients(self, network: nn.Module, optimiser: Any, max_norm: float) -> None:
        torch.nn.utils.clip_grad_norm_(network.parameters(), max_norm)

    def save(self, path: Path, state: dict[str, Any]) -> None:
        """Nothing resumes here."""


def trained(
    prepared: Path, encoder: Path, output: Path, device: torch.device,
    monkeypatch: pytest.MonkeyPatch,
) -> dict[str, list[dict[str, float]]]:  # fmt: skip
    """The logs of a few steps of both stages."""
    with monkeypatch.context() as patch:
        for stage in ("geometry", "renderer"):
            place = f"dubbing.training.{stage}"
            patch.setattr(f"{place}.launched", lambda options: _Fabric(device))
            patch.setattr(f"{place}.save_network", lambda *args, **kwargs: None)
        train_geometry(prepared, encoder, output, STEPS)
        train_renderer(prepared, output / f"{MORPHABLE}.safetensors", output, STEPS)
    logs = {}
    for stage in ("geometry", "renderer"):
        with (output / f"{stage}.csv").open(newline="") as file:
            logs[stage] = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    return logs


def test_a_card_takes_the_same_steps(
    prepared: Path, start_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = trained(prepared, start_encoder, tmp_path / "cpu", torch.device("cpu"), monkeypatch)
    with stand_in_card(monkeypatch) as card:
        there = trained(prepared, start_encoder, tmp_path / "card", CARD, monkeypatch)
        assert card.waits["up"] > 0
    for stage, log in here.items():
        assert [row["step"] for row in log][-1] == STEPS
        for row, same in zip(log, there[stage], strict=True):
            assert same == pytest.approx(row, rel=1e-3, abs=1e-5, nan_ok=True), stage
    assert here["geometry"][0]["loss"] != here["geometry"][1]["loss"]

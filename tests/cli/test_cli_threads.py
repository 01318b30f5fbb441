"""A dub runs its small operations on one thread, unless somebody says otherwise."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from dubbing.cli import main
from dubbing.threads import settle_threads


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_one_thread_unless_the_environment_names_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    settle_threads()
    assert torch.get_num_threads() == 2
    monkeypatch.delenv("OMP_NUM_THREADS")
    settle_threads()
    assert torch.get_num_threads() == 1


def test_commands_that_dub_settle_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert main(["inspect", "nowhere.mp4"]) == 3
    assert torch.get_num_threads() == 1

"""The benchmark of attention compares like with like."""

from __future__ import annotations

import pytest
import torch
from evaluation_samples import load_script

torch.set_num_threads(1)


def test_both_forms_give_the_same_result(capsys: pytest.CaptureFixture[str]) -> None:
    bench = load_script("attention_bench")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench, "WINDOW", (48, 64))
        patch.setattr(bench, "LIP_WINDOW", (16, 24))
        bench.main(["--rounds", "1"])
    table = capsys.readouterr().out
    assert "| lip window, 25 references | 24 x 225             | 24 x 4800" in table
    assert "ok     the same result" in table


def test_another_mask_is_another_result() -> None:
    bench = load_script("attention_bench")
    work = bench.problem((16, 24), 2, torch.device("cpu"))
    assert bench.difference(work.guided(), work.full(), work.inside) < 1e-4
    work.mask[:] = 0
    assert bench.difference(work.guided(), work.full(), work.inside) > 0.1

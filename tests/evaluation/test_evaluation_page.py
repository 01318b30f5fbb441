"""The page of an evaluation in a real browser, and the run that makes it."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from browser import Browser, find_chromium
from imageio_ffmpeg import get_ffmpeg_exe
from puppet_clips import FRAMES, puppet_clip

from dubbing.cli import main
from dubbing.errors import OptionInvalid
from dubbing.evaluation.evaluate import slug
from dubbing.evaluation.evaluation_tables import badness
from dubbing.evaluation.metrics import METRICS, of_protocol
from dubbing.evaluation.previews import WIDTH, write_preview
from dubbing.evaluation.protocol_names import PROTOCOLS
from dubbing.media.audio import load_speech
from dubbing.media.reader import VideoReader

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    puppet_clip(folder / "a.mkv", 0.4)
    puppet_clip(folder / "b.mkv", 3.2)
    return folder


@pytest.fixture(scope="module")
def report(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two programs evaluated on a self-dub: one passes the picture through, one fails."""
    folder = tmp_path_factory.mktemp("report")
    protocol = folder / "p.json"
    assert main(["protocol", str(clips), "--output", str(protocol), "--name", "puppets"]) == 0
    assert main(command(protocol, folder)) == 0
    return folder


def command(protocol: Path, folder: Path) -> list[str]:
    through = (
        f"{get_ffmpeg_exe()} -y -i {{video}} -i {{audio}} -map 0:v -map 1:a -c:v libx264 -crf 20 "
        "-c:a aac {output}"
    )
    program = folder / "broken.py"
    program.write_text("raise SystemExit('no<script>luck')")
    broken = f"{sys.executable} {program} {{video}} {{audio}} {{output}}"
    return [
        "evaluate", str(protocol), "--output", str(folder / "out"), "--protocols", "self-dub",
        "--only", "a", "--frames", "2", "--no-ours", "--no-baselines", "--device", "cpu", "--quiet",
        "--command", f"through={through}", "--command", f"broken={broken}",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium on this machine")
    with Browser(program, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def test_systems_are_judged_and_failures_are_counted(report: Path) -> None:
    facts = json.loads((report / "out" / "evaluation.json").read_text())
    rows = {row["system"]: row for row in facts["rows"]}
    assert set(rows) == {"through", "broken", "truth"}
    assert rows["broken"]["success"] == 0
    assert "no<script>luck" in rows["broken"]["error"]
    assert rows["through"]["psnr lower"] > 30
    assert rows["through"]["lag"] == 0
    assert rows["through"]["memory"] > 1
    assert rows["truth"]["psnr lower"] == pytest.approx(100)
    (table,) = facts["tables"]
    assert table["systems"]["broken"]["success"]["mean"] == 0
    assert table["systems"]["through"]["success"]["mean"] == 1
    assert "lmd" not in table["systems"]["broken"]
    assert {m["name"] for m in facts["definitions"]} == {m.name for m in METRICS}
    with (report / "out" / "evaluation.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["system"] for line in lines] == ["through", "broken", "truth"]
    assert "| success" in (report / "out" / "evaluation.md").read_text()


def test_a_later_run_goes_on_where_the_first_ended(report: Path) -> None:
    made = report / "out" / "videos" / "through" / "self-dub-a.mp4"
    kept = report / "out" / "cases" / "through" / "self-dub-a.json"
    before = made.stat().st_mtime_ns, kept.stat().st_mtime_ns
    assert main(command(report / "p.json", report)) == 0
    assert (made.stat().st_mtime_ns, kept.stat().st_mtime_ns) == before


def test_the_page_asks_for_nothing_and_its_players_play(report: Path, browser: Browser) -> None:
    browser.requests.clear()
    browser.open(report / "out" / "index.html")
    assert browser.run("document.title") == "Evaluation: puppets"
    assert browser.run("document.querySelectorAll('section.case').length") == 1
    assert browser.run("document.querySelectorAll('video').length") == 2
    played = browser.run(
        """(async () => {
            const found = [];
            for (const video of document.querySelectorAll('video')) {
                video.muted = true;
                await video.play();
                await new Promise(done => {
                    const poll = setInterval(() => {
                        if (video.currentTime > 0.2) { clearInterval(poll); done(); }
                    }, 20);
                });
                video.pause();
                found.push([video.currentTime, video.videoWidth, video.duration]);
            }
            return found;
        })()"""
    )
    for time, width, duration in played:
        assert time > 0.2
        assert width > 100
        assert duration == pytest.approx(FRAMES / 25, abs=0.2)
    assert browser.run("document.querySelectorAll('polyline').length") == 2
    assert browser.run("document.querySelector('section.case img').naturalWidth") > 300
    assert [u for u in browser.requests if not u.startswith(("data:", "file:", "blob:"))] == []
    assert sum(u.startswith("file:") for u in browser.requests) == 1
    assert "no<script>luck" in browser.run("document.querySelector('.failed').textContent")


def test_tables_sort_by_a_click_on_their_heading(report: Path, browser: Browser) -> None:
    browser.open(report / "out" / "index.html")
    names = "[...document.querySelector('table').tBodies[0].rows].map(r => r.cells[0].textContent)"
    click = "document.querySelectorAll('table th button')[{}].click()"
    browser.run(click.format(0))
    assert browser.run(names) == ["broken", "through", "truth"]
    browser.run(click.format(0))
    assert browser.run(names) == ["truth", "through", "broken"]
    heads = browser.run("[...document.querySelectorAll('table th button')].map(b => b.textContent)")
    browser.run(click.format(heads.index("PSNR lower, dB")))
    assert browser.run(names) == ["through", "truth", "broken"]  # what is not there comes last
    assert browser.run("document.querySelector('th[aria-sort=ascending]').textContent") == (
        "PSNR lower, dB"
    )


def test_a_preview_is_small_and_has_sound(clips: Path, tmp_path: Path) -> None:
    output = tmp_path / "small.webm"
    write_preview(clips / "a.mkv", output)
    with VideoReader(output) as reader:
        assert reader.video.codec == "vp8"
        assert reader.video.display_size[0] <= WIDTH
        assert reader.index.count == FRAMES
    assert len(load_speech(output)) / 16000 == pytest.approx(FRAMES / 25, abs=0.1)


def test_every_figure_says_what_it_is() -> None:
    for metric in METRICS:
        assert len(metric.definition) > 20 or metric.definition.startswith("the same")
        assert set(metric.protocols) <= set(PROTOCOLS)
    assert len({m.name for m in METRICS}) == len(METRICS)
    assert "leak" in {m.name for m in of_protocol("silence")}
    assert "psnr lower" not in {m.name for m in of_protocol("cross-speaker")}


def test_the_worst_comes_first() -> None:
    rows = [
        {"success": 1.0, "protocol": "self-dub", "lmd": 2.0},
        {"success": 0.0, "protocol": "self-dub"},
        {"success": 1.0, "protocol": "self-dub", "lmd": 5.0},
    ]
    assert sorted(rows, key=badness, reverse=True) == [rows[1], rows[2], rows[0]]
    assert badness({"success": 1.0, "protocol": "silence", "leak": 0.3}) == 0.3
    assert badness({"success": 1.0, "protocol": "long", "sync dist": 1.1}) == 1.1


def test_nothing_to_evaluate_is_an_error(report: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["evaluate", str(report / "p.json"), "--output", str(report / "x"), "--quiet"]
    nothing = [*arguments, "--no-ours", "--no-baselines"]
    assert main(nothing) == OptionInvalid.exit_code
    assert "nothing is to be evaluated" in capsys.readouterr().err
    assert main([*arguments, "--only", "zz"]) == OptionInvalid.exit_code
    assert slug("a b/c") == "a-b-c"

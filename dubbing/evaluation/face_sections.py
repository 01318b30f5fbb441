"""The tables of stage 2's report: figures, baselines and what is asked."""

from __future__ import annotations

from collections.abc import Sequence

from dubbing.evaluation import summaries
from dubbing.evaluation.face_protocols import SELF, UNCHANGED, WARP
from dubbing.evaluation.protocols import Row
from dubbing.evaluation.sections import Section, side_by_side
from dubbing.evaluation.summaries import Summary
from dubbing.evaluation.targets import Target

LINES = {  # figure in words: column
    "PSNR lower face, dB": "psnr",
    "SSIM lower face": "ssim",
    "PSNR lips, dB": "psnr lips",
    "PSNR where the renderer pastes, dB": "psnr pasted",
    "ST-LPIPS, face crop": "st-lpips",
    "ST-LPIPS, mouth 80 x 112": "st-lpips mouth",
    "sharpness mouth box, median": "sharp mouth",
    "sharpness cheeks, median": "sharp cheeks",
    "identity: distance / two real frames": "identity",
    "identity: distance to the very frame": "identity, same frame",
    "seam: gradient / source's": "gradient",
    "seam: colour step, CIE 2000": "colour",
    "faces found": "faces",
}


def held_out(rows: Sequence[Row]) -> Section:
    """Reconstruction and self-dub beside the baselines."""
    columns = {"ours, tracked": _column(rows, "")}
    if any(f"{SELF}psnr" in row for row in rows):
        columns["ours, self-dub"] = _column(rows, SELF)
    columns["source unchanged, 1 s off"] = _column(rows, UNCHANGED)
    columns["nearest lips, mesh warp"] = _column(rows, WARP)
    better = better_than_both(rows)
    columns["ours, tracked"]["clips with ST-LPIPS under both baselines"] = better
    columns["ours, tracked"]["leak: most that the hidden source changes"] = summaries.largest(
        rows, "leak"
    )
    ours = columns["ours, tracked"]
    targets = [
        Target("lower-face PSNR >= 29.5 dB", ours[_words("psnr")], low=29.5),
        Target("lower-face SSIM >= 0.88", ours[_words("ssim")], low=0.88),
        Target("ST-LPIPS under both baselines on >= 0.9 of the clips", better, low=0.9),
        Target("sharpness, mouth box, in 0.7..1.25", ours[_words("sharp mouth")], 0.7, 1.25),
        Target("sharpness, cheeks, in 0.7..1.25", ours[_words("sharp cheeks")], 0.7, 1.25),
        Target("identity distance <= 1.15 of two real frames", ours[_words("identity")], high=1.15),
        Target("seam: gradient <= 1.1 of the source's", ours[_words("gradient")], high=1.1),
        Target("seam: colour step < 1", ours[_words("colour")], high=0.9999),
    ]
    if "ours, self-dub" in columns:
        spoken = columns["ours, self-dub"]
        targets += [
            Target("self-dub: lower-face PSNR >= 27 dB", spoken[_words("psnr")], low=27),
            Target("self-dub: face found on all frames", spoken[_words("faces")], low=1.0),
        ]
    frames = sum(row["frames"] for row in rows)
    title = (
        f"Held-out frames: {len(rows)} clips, {frames} frames, 256-px face crops; no reference "
        "within 5 frames; means over clips"
    )
    return Section("held_out", title, side_by_side(columns), list(rows), targets)


def dubbed_runs(rows: Sequence[Row]) -> Section:
    """Flicker of dubs with another speaker's sound."""
    flicker = summaries.median(rows, "flicker")
    found, seen = (sum(r[name] for r in rows) for name in ("faces found", "faces"))
    lines: list[Row] = [
        {
            "figure": words,
            "mean": summaries.mean(rows, name),
            "median": summaries.median(rows, name),
            "worst": summaries.largest(rows, name),
        }
        for words, name in (
            ("flicker / source's, still pixels", "flicker"),
            ("flicker, ours, code values", "flicker, ours"),
            ("flicker, source, code values", "flicker, source"),
            ("frames per second: references, renderer, paste", "frames per second"),
        )
    ]
    share = found / seen if seen else None
    targets = [
        Target("flicker <= 1.2 of the source's (median)", flicker, high=1.2),
        Target("dub: face found where the source has one", share, low=1.0),
    ]
    title = f"Dubs with another speaker's sound: {len(rows)} clips, 25 consecutive frames each"
    return Section("dubbed_runs", title, lines, list(rows), targets)


def better_than_both(rows: Sequence[Row]) -> float | None:
    """Share of the clips on which our ST-LPIPS lies under that of both baselines."""
    judged = [row for row in rows if row.get("st-lpips") is not None]
    if not judged:
        return None
    better: list[bool] = [
        row["st-lpips"] < min(row[f"{UNCHANGED}st-lpips"], row[f"{WARP}st-lpips"]) for row in judged
    ]
    return sum(better) / len(better)


def _column(rows: Sequence[Row], prefix: str) -> Summary:
    return {
        words: (summaries.median if "sharp" in name else summaries.mean)(rows, f"{prefix}{name}")
        for words, name in LINES.items()
    }


def _words(name: str) -> str:
    return next(words for words, column in LINES.items() if column == name)

"""Check a sync expert on clips of speakers that it was not trained on.

    python scripts/sync_check.py --data prepared --cache runs/sync/cache \
        [--speakers clips.csv --held-out 0.1] [--kind crop] [--each]

Prints, over windows of one second and over whole clips, how often the true sound fits better than
the same sound 5 to 15 frames away and than another clip's sound, and how the measured offsets lie.
With --held-out only clips of those speakers that `dub train sync` holds back with the same share
and seed.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

import torch

from dubbing.evaluation.sync_trials import CheckClip, summary, trials
from dubbing.evaluation.tables import markdown
from dubbing.motion import RATE
from dubbing.speech.mel import SAMPLE_RATE
from dubbing.sync import load_sync, load_sync_crop, sync_audio
from dubbing.training.clips import at_rate, fitted, load_speech_samples, prepared_names
from dubbing.training.mouth_pictures import mouth_pictures
from dubbing.training.speakers import held_back, load_speakers
from dubbing.weights import PACKAGED, load_morphable, load_speech_encoder


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--data", type=Path, required=True, help="prepared clips")
    parser.add_argument("--cache", type=Path, required=True, help="fits and mouth pictures")
    parser.add_argument("--checkpoint", type=Path, help="expert (default: the packaged one)")
    parser.add_argument("--kind", choices=("geometry", "crop"), default="geometry")
    parser.add_argument("--morphable", type=Path, default=PACKAGED / "morphable.safetensors")
    parser.add_argument("--speech-encoder", type=Path,
                        default=PACKAGED / "speech_encoder.safetensors")  # fmt: skip
    parser.add_argument("--speakers", type=Path, help="CSV with the columns file and speaker")
    parser.add_argument("--held-out", type=float, default=0.0, help="share; 0 takes all clips")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="clips whose names begin so, comma between")
    parser.add_argument("--each", action="store_true", help="a row per clip too")
    return parser.parse_args()


@torch.inference_mode()
def load(arguments: argparse.Namespace, names: list[str]) -> list[CheckClip]:
    """The clips that can be checked: with a face, half a second of sound and, for pictures, a
    face large enough to have been stored."""
    model = load_morphable(arguments.morphable)
    encoder = load_speech_encoder(arguments.speech_encoder)
    index = model.lower.gt(0).nonzero()[:, 0]
    clips = []
    for name in names:
        samples = load_speech_samples(arguments.data, name)
        if arguments.kind == "crop":
            found = mouth_pictures(arguments.data, arguments.cache, name)
            if found is None:
                continue
            motion, usable = found
        else:
            beta, usable = at_rate(fitted(arguments.data, arguments.cache, name, model))
            motion = model.expression_vertices(beta)[:, index]
        frames = min(len(motion), int(len(samples) / SAMPLE_RATE * RATE))
        if frames < RATE // 2:
            continue
        audio = sync_audio(encoder, samples, frames)
        if motion.dtype == torch.uint8:
            motion = motion.float() / 255
        clips.append(CheckClip(name, audio, motion[:frames], usable[:frames]))
    return clips


def main() -> None:
    arguments = parse()
    torch.set_num_threads(1)
    names = prepared_names(arguments.data)
    if arguments.held_out:
        speakers = load_speakers(arguments.speakers, names)
        names = sorted(held_back(speakers, arguments.held_out, arguments.seed))
    if arguments.only:
        starts = tuple(arguments.only.split(","))
        names = [n for n in names if n.startswith(starts)]
    loader = load_sync_crop if arguments.kind == "crop" else load_sync
    expert = loader(arguments.checkpoint) if arguments.checkpoint else loader()
    rows = trials(expert, load(arguments, names))
    if not rows:
        raise SystemExit("no clip is long enough to be scored (1.3 s with a face)")
    if arguments.each:
        each = [asdict(row) | {"sure": "yes" if row.sure else "no"} for row in rows]
        print(markdown(list(each[0]), each))
        print()
    total = summary(rows)
    print(markdown(list(total), [total]))


if __name__ == "__main__":
    main()

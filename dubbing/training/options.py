"""Options of the training commands: plain data, light to import."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dubbing.options import DEVICES, check_fields, option

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")


@dataclass(frozen=True)
class PrepareOptions:
    """Options of `dub train prepare`: footage in, tracked and filtered clips out."""

    data: Path = option("Folder of talking-head videos, searched with its subfolders.")
    output: Path = option("Folder that receives the prepared clips.")
    workers: int = option(
        "Processes that prepare clips at the same time.",
        2,
        reason="each needs about one core",
        low=1,
    )
    limit: int = option("Stop after this many videos; 0 takes all.", 0, low=0)

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class GeometryTrainOptions:
    """Options of `dub train geometry`: stage 1, speech to lower-face geometry."""

    data: Path = option("Folder that 'dub train prepare' wrote.")
    output: Path = option("Folder that receives checkpoints and logs.")
    speech_encoder: Path = option(
        "Start weights of the speech encoder (scripts/import_speech_encoder.py makes them).",
        Path("checkpoints/speech_encoder.safetensors"),
    )
    features: str = option(
        "Speech features: 'own' is the encoder of --speech-encoder, 'hubert' is HuBERT base, whose "
        "weights (360 MB) torchaudio's server has.",
        "own",
        reason="our encoder ships with the engine; a dub with HuBERT features needs its download",
        choices=("own", "hubert"),
    )
    steps: int = option("Optimiser steps in all.", 3000, low=1)
    batch_size: int = option("Clips per step and device.", 16, low=1)
    learning_rate: float = option("Peak learning rate (AdamW).", 3e-4, low=1e-8, high=1.0)
    finetune_encoder_steps: int = option(
        "Last steps in which the speech encoder is trained too; 0 keeps it frozen.",
        400,
        reason="the pretrained encoder is spoilt if it moves before the rest has settled",
        low=0,
    )
    seed: int = option("Seed of every random choice.", 0, low=0)
    device: str = option("Where to train.", "auto", choices=DEVICES)
    resume: bool = option("Go on from the last checkpoint in the output folder.", True)
    precision: str = option("Number format of the forward pass.", "32-true", choices=PRECISIONS)
    log_every: int = option("Steps between log lines.", 25, low=1)
    save_every: int = option("Steps between checkpoints.", 500, low=1)
    devices: int = option("How many devices train together.", 1, low=1)

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class RendererTrainOptions:
    """Options of `dub train renderer`: stage 2, geometry and references to pixels."""

    data: Path = option("Folder that 'dub train prepare' wrote.")
    output: Path = option("Folder that receives checkpoints and logs.")
    morphable: Path = option(
        "Morphable model that stage 1 was trained with.",
        Path("checkpoints/morphable.safetensors"),
    )
    perceptual: Path | None = option(
        "VGG16 trunk of the perceptual loss (scripts/import_perceptual.py makes it).",
        None,
        reason="its weights are not ours to ship; without them the loss has no perceptual term",
    )
    steps: int = option("Optimiser steps in all.", 6000, low=1)
    batch_size: int = option("Target frames per step and device.", 4, low=1)
    learning_rate: float = option("Peak learning rate (AdamW).", 2e-4, low=1e-8, high=1.0)
    adversarial_from: int = option(
        "Step at which the mouth and face discriminators join.",
        2000,
        reason="before the picture is roughly right they only learn to spot the blur",
        low=0,
    )
    seed: int = option("Seed of every random choice.", 0, low=0)
    device: str = option("Where to train.", "auto", choices=DEVICES)
    resume: bool = option("Go on from the last checkpoint in the output folder.", True)
    precision: str = option("Number format of the forward pass.", "32-true", choices=PRECISIONS)
    log_every: int = option("Steps between log lines.", 25, low=1)
    save_every: int = option("Steps between checkpoints.", 500, low=1)
    devices: int = option("How many devices train together.", 1, low=1)

    def __post_init__(self) -> None:
        check_fields(self)

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
    care: bool = option(
        "Also fit every clip, measure the offset between its sound and lips, and leave clips whose "
        "sound and lips don't match out of stage 1.",
        True,
        reason="lips that are late or another person's voice teach the wrong movements",
    )
    sync: Path | None = option(
        "Sync expert that measures the offset ('dub train sync' makes it). Default: the packaged "
        "one, where there is one.",
        None,
    )
    morphable: Path | None = option(
        "Morphable model that the expert was trained with. Default: the packaged one.", None
    )
    speech_encoder: Path | None = option(
        "Speech encoder whose frozen lower half the expert hears with. Default: the packaged one.",
        None,
    )
    speakers: Path | None = option(
        "CSV with the columns file and speaker: clips of some words then share the offset that "
        "the speaker's clips show. Without it they keep their sound as it is.",
        None,
    )

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
    speakers: Path | None = option(
        "CSV with the columns file and speaker; without it every clip counts as a person.", None
    )
    held_out: float = option(
        "Share of the speakers that are not trained on but checked.", 0.06, low=0.0, high=0.9
    )
    cache: Path | None = option("Folder for fits and speech states. Default: in the output.", None)
    offsets: Path | None = option(
        "offsets.csv of 'dub train sync', in place of what 'dub train prepare' measured; where "
        "neither is sure, stage 1 measures the offset itself.",
        None,
    )
    sync: Path | None = option(
        "Sync expert ('dub train sync' makes it) that judges sound and made lips in training.", None
    )
    sync_weight: float = option(
        "Weight of the expert's judgement beside the other terms.", 0.05, low=0.0
    )
    steps: int = option(
        "Optimiser steps in all.", 600, reason="beyond, speakers are learned by heart", low=1
    )
    batch_size: int = option("Clips per step and device.", 16, low=1)
    learning_rate: float = option("Peak learning rate (AdamW).", 4e-4, low=1e-8, high=1.0)
    finetune_encoder_steps: int = option(
        "Last steps in which the speech encoder is trained too; 0 keeps it frozen.",
        150,
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
    start: Path | None = option("Renderer to start from. Default: random weights.", None)
    steps: int = option("Optimiser steps in all.", 6000, low=1)
    batch_size: int = option("Target frames per step and device.", 4, low=1)
    learning_rate: float = option("Peak learning rate (AdamW).", 2e-4, low=1e-8, high=1.0)
    jitter: float = option(
        "Errors of stage 1 in the geometry, in deviations of a clip's expressions.",
        0.25,
        reason="about how far driven expressions are from tracked ones, beside what is not speech",
        low=0.0,
        high=2.0,
    )
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


@dataclass(frozen=True)
class SyncTrainOptions:
    """Options of `dub train sync`: the experts that tell whether sound and mouth fit."""

    data: Path = option("Folder that 'dub train prepare' wrote.")
    output: Path = option("Folder that receives the checkpoint, the offsets and logs.")
    morphable: Path = option(
        "Morphable model of the fits.", Path("checkpoints/morphable.safetensors")
    )
    speech_encoder: Path = option(
        "Speech encoder; only its lower half is used, which training never changes.",
        Path("checkpoints/speech_encoder.safetensors"),
    )
    kind: str = option(
        "'geometry' sees the mesh (a loss of stage 1, and a score), 'crop' sees pictures of the "
        "mouth (a score of finished video).",
        "geometry",
        choices=("geometry", "crop"),
    )
    speakers: Path | None = option(
        "CSV with the columns file and speaker; without it every clip counts as a person.", None
    )
    held_out: float = option(
        "Share of the speakers that are not trained on but checked.", 0.08, low=0.0, high=0.9
    )
    cache: Path | None = option("Folder for fits and features. Default: in the output.", None)
    offsets: Path | None = option(
        "offsets.csv of another run on the same clips, in place of measuring them.", None
    )
    rough_steps: int = option(
        "Steps of each of the two rounds in which the offsets of every clip are measured by an "
        "expert that was trained on other speakers; 0 trusts the clips as they are.",
        200,
        low=0,
    )
    steps: int = option("Optimiser steps of the expert itself.", 700, low=1)
    batch_size: int = option("Windows of 1.6 s per step.", 48, low=2)
    learning_rate: float = option("Peak learning rate (AdamW).", 1.5e-3, low=1e-8, high=1.0)
    seed: int = option("Seed of every random choice.", 0, low=0)
    device: str = option("Where to train.", "auto", choices=DEVICES)
    precision: str = option(
        "Number format of the forward pass.", "32-true", choices=("32-true", "bf16-mixed")
    )
    resume: bool = option("Go on from what lies in the output folder.", True)
    log_every: int = option("Steps between log lines.", 50, low=1)
    save_every: int = option("Steps between states.", 250, low=1)

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class StyleTrainOptions:
    """Options of `dub train style`: the encoder of speaking styles behind StyleSim, and the metric
    by which the engine brings motion to a style."""

    data: Path = option("Folder that 'dub train prepare' wrote.")
    output: Path = option("Folder that receives the checkpoint and the log.")
    kind: str = option(
        "The encoder that judges, or the metric that the engine uses.",
        "encoder",
        choices=("encoder", "metric"),
    )
    morphable: Path = option(
        "Morphable model of the fits.", Path("checkpoints/morphable.safetensors")
    )
    speakers: Path | None = option(
        "CSV with the columns file and speaker; without it every clip counts as a person.", None
    )
    held_out: float = option(
        "Share of the speakers that are not trained on but checked.", 0.15, low=0.0, high=0.9
    )
    cache: Path | None = option("Folder for fits. Default: in the output.", None)
    steps: int = option("Optimiser steps in all.", 700, low=1)
    batch_size: int = option("Pairs of windows per step.", 48, low=2)
    learning_rate: float = option("Peak learning rate (AdamW).", 2e-3, low=1e-8, high=1.0)
    temperature: float = option(
        "Of the contrast: how much the nearest other speakers count above the rest.",
        0.1,
        reason="DiffPoseTalk's",
        low=0.01,
        high=1.0,
    )
    seed: int = option("Seed of every random choice.", 0, low=0)
    device: str = option("Where to train.", "auto", choices=DEVICES)
    log_every: int = option("Steps between log lines with held-out figures.", 50, low=1)

    def __post_init__(self) -> None:
        check_fields(self)

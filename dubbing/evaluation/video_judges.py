"""Everything that judges finished videos, with the version of each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dubbing.closing import Closing
from dubbing.errors import CheckpointNotFound
from dubbing.evaluation.frechet import PictureEncoder, load_inception, trunk_encoder
from dubbing.evaluation.judges import Judges
from dubbing.evaluation.landmarks68 import LandmarkDetector, independent_landmarks
from dubbing.evaluation.studio import makers_digest
from dubbing.evaluation.style import STYLE, load_style_encoder
from dubbing.evaluation.syncnet import LseMeter, load_lse
from dubbing.geometry.morphable import MorphableModel
from dubbing.models.speech_encoder import SpeechEncoder
from dubbing.models.style_encoder import StyleEncoder
from dubbing.models.sync_net import MouthSyncNet
from dubbing.sync import SYNC_CROP, load_sync_crop
from dubbing.weights import MORPHABLE, PACKAGED, SPEECH, load_morphable, load_speech_encoder


@dataclass(frozen=True)
class VideoJudges(Closing):
    """Judges of videos; always those of the package, whatever checkpoint is judged. Close it when
    done.

    Attributes:
        pictures: of single crops; model: the mesh that every video is tracked with.
        landmarks: the independent detector; style, sync, speech: the package's own.
        lse, frechet: None where their weights were not given (Fréchet falls back on ST-LPIPS's
            trunk where that is there).
        versions: {judge: what it is}; missing: one line for each that is not there.
    """

    pictures: Judges
    model: MorphableModel
    landmarks: LandmarkDetector
    style: StyleEncoder | None
    sync: MouthSyncNet | None
    speech: SpeechEncoder
    lse: LseMeter | None
    frechet: PictureEncoder | None
    versions: dict[str, str]
    missing: list[str]

    @classmethod
    def load(
        cls, perceptual: Path | None, syncnet: Path | None, inception: Path | None
    ) -> VideoJudges:
        """Load what there is.

        Raises:
            CheckpointNotFound, CheckpointCorrupt: a file given can't be used.
        """
        pictures = Judges.load(perceptual)
        missing = list(pictures.missing)
        landmarks = independent_landmarks(pictures.mesher)
        lse = None if syncnet is None else load_lse(syncnet)
        if lse is None:
            missing.append("no LSE-C and LSE-D: SyncNet's weights were not given")
        frechet = None
        if inception is not None:
            frechet = load_inception(inception)
        elif pictures.perceptual is not None:
            frechet = trunk_encoder(pictures.perceptual)
        else:
            missing.append("no Fréchet distance: neither Inception nor ST-LPIPS weights were given")
        style = sync = None
        try:
            style = load_style_encoder()
        except CheckpointNotFound as error:
            missing.append(f"no StyleSim: {error}")
        try:
            sync = load_sync_crop()
        except CheckpointNotFound as error:
            missing.append(f"no sync score: {error}")
        versions = {
            "tracking": f"MediaPipe 0.10.14, face model {makers_digest()}",
            "landmarks": landmarks.version,
        }
        found = {
            "perceptual": pictures.perceptual and pictures.perceptual.version,
            "identity": pictures.identity and pictures.identity.version,
            "style": style and f"{STYLE}.safetensors of the package",
            "sync": sync and f"{SYNC_CROP}.safetensors of the package",
            "LSE": lse and lse.version,
            "Fréchet": frechet and frechet.version,
        }
        versions |= {name: text for name, text in found.items() if text}
        return cls(
            pictures, load_morphable(PACKAGED / f"{MORPHABLE}.safetensors"), landmarks, style, sync,
            load_speech_encoder(PACKAGED / f"{SPEECH}.safetensors"), lse, frechet, versions,
            missing,
        )  # fmt: skip

    def close(self) -> None:
        self.pictures.close()

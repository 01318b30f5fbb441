"""From a fitted track to a `Persona`: reference selection and the pictures of the bank."""

from __future__ import annotations

from collections import Counter

import numpy as np
import torch

from dubbing.analysis import SpeakerTrack
from dubbing.errors import NoFaceFound
from dubbing.geometry.morphable import MorphableModel, track_opening
from dubbing.geometry.pose import yaw_pitch_roll
from dubbing.geometry.topology import LIPS
from dubbing.media.reader import VideoReader
from dubbing.persona import Persona, fingerprint, resting_expression
from dubbing.render.mesh import RenderMesh
from dubbing.render.pictures import FacePicture, registered_bank
from dubbing.render.references import N_BANK, N_LIP, covering_lip_references
from dubbing.render.scene import face_windows
from dubbing.render.window import window_rect
from dubbing.style_reference import StyleReference

MAX_CANDIDATES = 1000  # frames, evenly over the clip, whose mouths are compared
MAX_REFERENCE_TURN = 30.0  # degrees from the clip's usual yaw
MAX_REFERENCE_ERROR = 0.006  # face heights, or the median of the clip if that is worse
MIN_SHOT = 50  # usable frames; a shorter shot shows too few mouths and uses those of the whole clip
MAX_SHOT_BANKS = 8  # shots with references of their own: bounds the memory of a film


def lip_reference_frames(
    model: MorphableModel, speaker: SpeakerTrack, track: int | None = None
) -> list[int]:
    """Video frames of the lip references (see `covering_lip_references`), from the whole clip or,
    half as many, from one face track; of a clip that passes through, any."""
    fit = speaker.fit
    frames = list(speaker.position)
    opening = track_opening(model, fit.template, fit.beta)
    yaw = yaw_pitch_roll(fit.pose)[:, 0]
    facing = (yaw - yaw.median()).abs().numpy() < MAX_REFERENCE_TURN
    error = fit.error.numpy()
    sure = error <= max(MAX_REFERENCE_ERROR, float(np.median(error)))
    dubbed = np.array([f not in speaker.reasons for f in frames])
    if track is not None:
        dubbed &= np.array([speaker.part[f] == track for f in frames])
    good = dubbed & facing & sure
    kept = next((k for k in (good, dubbed) if k.any()), np.ones_like(dubbed))
    allowed = np.flatnonzero(kept)
    picked = np.linspace(0, len(allowed) - 1, min(MAX_CANDIDATES, len(allowed))).round()
    rows = torch.from_numpy(allowed[picked.astype(int)])
    lips = torch.einsum("te,elc->tlc", fit.beta[rows], model.expression[:, list(LIPS)])
    count = N_BANK if track is None else N_LIP
    return [frames[rows[k]] for k in covering_lip_references(lips, opening[rows], count)]


def shot_reference_frames(model: MorphableModel, speaker: SpeakerTrack) -> dict[int, list[int]]:
    """{face track: its own lip references} of the longest shots, where there are several."""
    if len(speaker.ids) < 2:
        return {}
    usable = Counter(p for f, p in speaker.part.items() if f not in speaker.reasons)
    long = [track for track, count in usable.most_common(MAX_SHOT_BANKS) if count >= MIN_SHOT]
    return {track: lip_reference_frames(model, speaker, track) for track in sorted(long)}


def build_persona(
    reader: VideoReader,
    speaker: SpeakerTrack,
    model: MorphableModel,
    mesh: RenderMesh,
    frames: int,
    morphable_hash: str,
) -> Persona:
    """Choose the references, cut their pictures from the video, and bundle the speaker.

    Args:
        model, mesh: on the CPU.
        frames: number of frames of the video.

    Raises:
        NoFaceFound: no frame of the track is usable.
    """
    fit = speaker.fit
    chosen = lip_reference_frames(model, speaker)
    shots = shot_reference_frames(model, speaker)
    kept: dict[int, FacePicture] = {}
    for frame in reader.read_indices(
        sorted({*chosen, *(f for own in shots.values() for f in own)})
    ):
        row = speaker.position[frame.index]
        window = face_windows(mesh, fit.pose[[row]])[0].numpy()
        x, y, width, height = window_rect(window, frame.size)
        if width < 8 or height < 8:
            continue
        pixels = frame.rgb_region(x, y, width, height)
        kept[frame.index] = FacePicture(pixels, (x, y), fit.beta[row], fit.pose[row])
    bank_frames = [f for f in chosen if f in kept]
    if not bank_frames:
        raise NoFaceFound("no frame can serve as a reference", path=reader.path)

    def bank_of(frames: list[int]) -> list[FacePicture]:
        return registered_bank(model, mesh, fit.template, [kept[f] for f in frames])

    bank = bank_of(bank_frames)
    shot_frames = {t: [f for f in own if f in kept] for t, own in shots.items()}
    usable = [f for f in sorted(speaker.position) if f not in speaker.reasons]
    dubbed = [speaker.position[f] for f in usable]
    times = torch.tensor([float(reader.index.times[f]) for f in usable], dtype=torch.float64)
    beta = fit.beta[dubbed]
    opening = track_opening(model, fit.template, beta)
    return Persona(
        alpha=fit.alpha,
        template=fit.template,
        style=StyleReference.of(times, beta),
        rest=resting_expression(beta, opening),
        bank=bank,
        bank_frames=bank_frames,
        morphable=morphable_hash,
        source=fingerprint(reader.path),
        track_ids=speaker.ids,
        track_frames=torch.tensor(list(speaker.position), dtype=torch.int64),
        track_parts=torch.tensor(list(speaker.part.values()), dtype=torch.int64),
        track_beta=fit.beta,
        track_pose=fit.pose,
        track_error=fit.error,
        frames=frames,
        faults=speaker.reasons,
        cuts=speaker.cuts,
        shot_banks={track: bank_of(own) for track, own in shot_frames.items() if own},
    )

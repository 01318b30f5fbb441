"""A video's face tracks as data: for the report, and as a persona of the same video holds them."""

from __future__ import annotations

from collections.abc import Sequence

from dubbing.analysis import SpeakerTrack, VideoFaces
from dubbing.geometry.fit import FaceFit
from dubbing.persona import Persona
from dubbing.report import FaceTrackFacts


def track_facts(
    faces: VideoFaces, speakers: Sequence[SpeakerTrack], agreement: dict[int, float]
) -> list[FaceTrackFacts]:
    """Every face track of a video for the report."""
    confidence = {t: sure for speaker in speakers for t, sure in speaker.confidences().items()}
    return [
        FaceTrackFacts(
            t.id,
            t.frames[0],
            t.frames[-1] + 1,
            len(t.frames),
            t.mean_side,
            t.id in confidence,
            confidence.get(t.id),
            agreement.get(t.id),
        )
        for t in faces.tracks
    ]


def speaker_facts(speaker: SpeakerTrack) -> list[FaceTrackFacts]:
    """The speaker's tracks for the report, where only they are known: the size is that of the
    fitted face."""
    confidence = speaker.confidences()
    facts = []
    for track in speaker.ids:
        frames = sorted(frame for frame, part in speaker.part.items() if part == track)
        height = 2 * speaker.fit.pose[[speaker.position[f] for f in frames], 3].exp()
        start, stop, size = frames[0], frames[-1] + 1, float(height.mean())
        facts.append(FaceTrackFacts(track, start, stop, len(frames), size, True, confidence[track]))
    return facts


def track_of(persona: Persona) -> SpeakerTrack:
    """The speaker's track as stored in a persona of the same video."""
    frames = persona.track_frames.tolist()
    fit = FaceFit(
        persona.alpha, persona.template, persona.track_beta, persona.track_pose, persona.track_error
    )
    return SpeakerTrack(
        persona.track_ids,
        {frame: row for row, frame in enumerate(frames)},
        dict(zip(frames, persona.track_parts.tolist(), strict=True)),
        fit,
        persona.faults,
        persona.cuts,
    )

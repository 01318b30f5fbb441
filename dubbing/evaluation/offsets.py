"""By how much a real clip's own sound and lips are apart, as an independent expert finds it."""

from __future__ import annotations

import torch
from torch import Tensor

from dubbing.evaluation.clips import Clip, Samples
from dubbing.evaluation.faces import FaceMotion, vertex_motion
from dubbing.media.audio import SPEECH_RATE
from dubbing.models.speech_encoder import SpeechEncoder
from dubbing.models.sync_net import SyncNet
from dubbing.motion import RATE
from dubbing.sync import clip_offset, sync_audio


def own_offset(
    expert: SyncNet,
    encoder: SpeechEncoder,
    clip: Clip,
    truth: FaceMotion,
    template: Tensor,
    lower: Tensor,
) -> tuple[int, bool]:
    """Frames at 25 Hz by which the lips of a real clip are late behind its sound, as the sync
    expert hears and sees it, and whether it is sure of that.

    Args:
        truth: the clip's lips on the picture's clock; lower: [L] vertices that the expert was
            trained on.
    """
    frames = int(clip.seconds * RATE)
    motion, known = vertex_motion(truth, template, lower, clip.sound_offset, frames)
    samples: Samples = clip.samples[: round(frames / RATE * SPEECH_RATE)]
    audio = sync_audio(encoder, torch.from_numpy(samples), frames)
    return clip_offset(expert, audio.cpu(), motion, known)

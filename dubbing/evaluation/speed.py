"""How fast stage 1 is, its audio encoder included."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from dubbing.dubber import Dubber
from dubbing.evaluation.clips import Samples
from dubbing.media.audio import SPEECH_RATE
from dubbing.persona import Persona

TRACK_S = 60.0  # seconds of speech
TRIES = 3


@dataclass(frozen=True)
class Stage1Speed:
    """Seconds of speech per second of work.

    Attributes:
        whole: from samples to motion: voice activity, encoder, style, network.
        encoder: the audio encoder alone.
        processor: `whole` per second of processor time, all threads added up: what other programs
            take does not count.
        threads: of torch; load: the machine's load average over the last minute before the
            measurement (what other programs take is missing here); cores: of the machine.
    """

    whole: float
    encoder: float
    processor: float
    threads: int
    load: float
    cores: int


def stage1_speed(dubber: Dubber, persona: Persona, speech: Samples) -> Stage1Speed:
    """The fastest of three runs over 60 s made of `speech`, repeated as needed."""
    samples = torch.from_numpy(np.resize(speech, round(TRACK_S * SPEECH_RATE)))
    load = os.getloadavg()[0]
    whole, busy = _fastest(lambda: dubber.drive(samples, TRACK_S, persona), dubber.device)
    encoder, _ = _fastest(lambda: dubber.features.encode(samples), dubber.device)
    return Stage1Speed(
        TRACK_S / whole,
        TRACK_S / encoder,
        TRACK_S / busy,
        torch.get_num_threads(),
        load,
        os.cpu_count() or 1,
    )


def _fastest(work: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Least seconds of the clock and of the processor of `TRIES` runs."""
    clock, processor = [], []
    for _ in range(TRIES):
        start, busy = time.perf_counter(), time.process_time()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        clock.append(time.perf_counter() - start)
        processor.append(time.process_time() - busy)
    return min(clock), min(processor)

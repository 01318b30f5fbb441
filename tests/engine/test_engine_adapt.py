"""Persona adaptation: it learns what can be learned, refuses the rest, and touches nobody else."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from stand_in_device import stand_in_card
from torch import Tensor

import dubbing
from dubbing.adaptation import (
    PART,
    STEPS,
    Adaptation,
    Adapter,
    OwnSpeech,
    adapted_network,
)
from dubbing.dubber import Dubber
from dubbing.errors import PersonaInvalid
from dubbing.held_back import GUARD, best_look, hold_back, richest, stretches
from dubbing.media.audio import load_speech
from dubbing.motion import RATE, frame_features
from dubbing.options import DubOptions
from dubbing.persona import Persona
from dubbing.style_reference import StyleReference
from dubbing.training.lags import best_lag
from dubbing.weights import load_engine

SPEECH = Path(dubbing.__file__).parent / "assets" / "demo_speech.flac"


@pytest.fixture(scope="module")
def samples() -> Tensor:
    once = torch.from_numpy(load_speech(SPEECH))
    return torch.cat([once, once])[: 8 * 16000]


def speaker(dubber: Dubber, samples: Tensor, late: int = 0, own: float = 0.8) -> OwnSpeech:
    """Somebody whose lips follow half of the speech features by `own` less than usual: as a network
    with another first layer would move them, `late` frames behind the sound."""
    net, model = dubber.weights.geometry, dubber.weights.morphable
    weight = dict(net.named_parameters())["audio_in.0.weight"].detach()
    change = -own * weight
    change[len(weight) // 2 :] = 0
    changes = {"audio_in.0.weight": change}
    features = dubber.features.encode(samples).float()
    times = torch.arange(int(len(samples) / 16000 * RATE), dtype=torch.float64) / RATE
    audio = frame_features(features, times - late / RATE).float()
    with torch.inference_mode():
        other = adapted_network(net, changes)
        lower = other(audio[None], net.average_style[None], net.mean[None])[0]
    basis = model.expression[:, net.lower].flatten(1)
    beta = lower.flatten(1).clone() @ torch.linalg.pinv(basis)
    return OwnSpeech(
        features, 0.0, lambda t: torch.ones(len(t)), times, beta, net.mean,
        StyleReference.of(times, beta), beta.mean(0),
    )  # fmt: skip


def test_a_speaker_with_an_own_way_is_learned(dubber: Dubber, samples: Tensor) -> None:
    before = {k: v.clone() for k, v in dubber.weights.geometry.state_dict().items()}
    adapter = Adapter(dubber.weights.geometry, dubber.weights.morphable, "these")
    steps: list[None] = []
    speech = speaker(dubber, samples, late=2)
    outcome = adapter.adapt(speech, lambda: steps.append(None))
    assert outcome.applied, outcome.text
    assert outcome.lag == 2.0
    assert outcome.generic is not None
    assert outcome.adapted is not None
    assert outcome.adapted > outcome.generic + 0.01
    assert outcome.weights == "these"
    assert all(name.startswith(f"{PART}.") for name in outcome.changes)
    assert sum(v.nbytes for v in outcome.changes.values()) < 500_000
    assert len(steps) == STEPS == adapter.total
    again = adapter.adapt(speech)
    assert all(torch.equal(again.changes[k], v) for k, v in outcome.changes.items())
    after = dubber.weights.geometry.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items())  # shared weights untouched


def test_a_card_learns_the_same(
    dubber: Dubber, samples: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    speech = speaker(dubber, samples, late=2)
    here = Adapter(dubber.weights.geometry, dubber.weights.morphable).adapt(speech)
    with stand_in_card(monkeypatch):
        weights = load_engine("default", torch.device("cuda"))
        there = Adapter(weights.geometry, weights.morphable).adapt(speech)
    assert there.facts() == pytest.approx(here.facts(), abs=1e-3)
    assert there.applied
    assert all(v.device.type == "cpu" for v in there.changes.values())
    for name, change in here.changes.items():
        assert torch.allclose(there.changes[name], change, atol=1e-4)


def test_lips_of_other_words_are_refused(dubber: Dubber, samples: Tensor) -> None:
    speech = speaker(dubber, samples)
    foreign = dataclasses.replace(speech, beta=speech.beta.flip(0))
    outcome = Adapter(dubber.weights.geometry, dubber.weights.morphable).adapt(foreign)
    assert not outcome.applied
    assert "do not seem to belong together" in outcome.reason
    assert outcome.text.startswith("not adapted")


def test_what_generic_weights_do_already_stays_generic(dubber: Dubber, samples: Tensor) -> None:
    speech = speaker(dubber, samples, own=0.0)
    outcome = Adapter(dubber.weights.geometry, dubber.weights.morphable).adapt(speech)
    assert not outcome.applied
    assert outcome.generic is not None
    assert outcome.generic > 0.95
    assert "held-back lips would correlate" in outcome.reason


def test_three_seconds_are_too_short(dubber: Dubber, samples: Tensor) -> None:
    outcome = Adapter(dubber.weights.geometry, dubber.weights.morphable).adapt(
        speaker(dubber, samples[: 3 * 16000])
    )
    assert "too short to adapt, 3.0 s" in outcome.reason


def test_a_video_without_sound_keeps_the_generic_weights(dubber: Dubber, clip: Path) -> None:
    persona = dubber.prepare(clip, DubOptions(adapt=True))
    assert persona.adaptation is not None
    assert not persona.adaptation.applied
    assert "sound" in persona.adaptation.reason or "audio" in persona.adaptation.reason


@pytest.fixture(scope="module")
def learned(dubber: Dubber) -> Adaptation:
    """A large change that can't be overlooked."""
    net = dubber.weights.geometry
    changes = {"audio_in.1.weight": 0.5 * dict(net.named_parameters())["audio_in.1.weight"].half()}
    return Adaptation(changes, dubber.learner.stage1_hash, "", 0.6, 0.7, 1.0, 9.0)


def test_an_adapted_persona_moves_otherwise_and_nobody_else_does(
    dubber: Dubber, persona: Persona, samples: Tensor, learned: Adaptation
) -> None:
    generic = dubber.drive(samples, 4.0, persona).lower
    adapted = dubber.drive(samples, 4.0, dataclasses.replace(persona, adaptation=learned)).lower
    assert (adapted - generic).abs().max() > 1e-3
    assert torch.equal(dubber.drive(samples, 4.0, persona).lower, generic)
    stranger = dataclasses.replace(learned, weights="another checkpoint")
    other = dataclasses.replace(persona, adaptation=stranger)
    assert torch.equal(dubber.drive(samples, 4.0, other).lower, generic)
    assert "another checkpoint" in dubber.learner.adaptation_notes(other)[0]


def test_an_adaptation_survives_the_persona_file(
    persona: Persona, tmp_path: Path, learned: Adaptation
) -> None:
    path = tmp_path / "a.persona"
    dataclasses.replace(persona, adaptation=learned).save(path)
    back = Persona.load(path).adaptation
    assert back is not None
    assert back.facts() == learned.facts()
    assert torch.equal(back.changes["audio_in.1.weight"], learned.changes["audio_in.1.weight"])
    assert persona.adaptation is None
    persona.save(path)
    assert Persona.load(path).adaptation is None


@pytest.mark.parametrize(
    ("version", "unknown"),
    [("3", ("style_starts",)),
     ("2", ("style_starts", "cuts", "notes", "shot_origins")),
     ("1", ("style_starts", "cuts", "notes", "shot_origins", "adaptation"))],
)  # fmt: skip
def test_personas_of_older_formats_still_load(
    version: str, unknown: tuple[str, ...], persona: Persona, tmp_path: Path
) -> None:
    path, old = tmp_path / "new.persona", tmp_path / "old.persona"
    persona.save(path)
    with safe_open(path, "pt") as file:
        facts = json.loads(file.metadata()["persona"])
        tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
    assert facts["format"] == "4"
    tensors = {k: v for k, v in tensors.items() if not k.endswith("_offset")}
    facts = {k: v for k, v in facts.items() if k not in unknown} | {"format": version}
    if "shot_origins" in unknown:
        tensors = {k: v for k, v in tensors.items() if not k.startswith("shot")}
    save_file(tensors, old, {"persona": json.dumps(facts)})
    loaded = Persona.load(old)
    assert torch.equal(loaded.template, persona.template)
    assert torch.equal(loaded.style.expressions, persona.style.expressions)
    assert all(picture.offset is None for picture in loaded.bank)
    loaded.save(old)
    assert Persona.load(old).bank_frames == persona.bank_frames
    assert not loaded.style.follows.any()  # nobody knows which moments followed each other
    if "cuts" in unknown:
        assert (loaded.cuts, loaded.notes, loaded.shot_banks) == ([], [], {})


def test_a_change_that_does_not_fit_is_refused(dubber: Dubber) -> None:
    with pytest.raises(PersonaInvalid, match="nowhere"):
        adapted_network(dubber.weights.geometry, {"nowhere": torch.zeros(3)})


def test_stretches_share_the_speech() -> None:
    weight = torch.zeros(100)
    weight[20:80] = 1
    parts = stretches(weight, 3)
    assert [p[0] for p in parts[1:]] == [p[1] for p in parts[:-1]]
    assert parts[0][0] == 0
    assert parts[-1][1] == 100
    assert [int(weight[a:b].sum()) for a, b in parts] == [20, 20, 20]


@pytest.mark.parametrize("lag", [-5, 0, 3])
def test_lag_counts_only_known_frames(lag: int) -> None:
    made = torch.randn(200, generator=torch.Generator().manual_seed(1))
    seen = made.roll(lag)
    seen[50:90] = 99.0
    weight = torch.ones(200)
    weight[50:90] = 0
    assert best_lag(made, seen, weight=weight)[0] == lag


def test_nothing_is_learned_from_what_is_held_back() -> None:
    weight = torch.ones(90)
    weight[40:44] = 0
    held, learned = hold_back(weight, 3)
    assert sorted(torch.cat(held).tolist()) == weight.nonzero()[:, 0].tolist()
    for frames, row in zip(held, learned, strict=True):
        near = (frames[:, None] + torch.arange(-GUARD, GUARD + 1)).clamp(0, 89)
        assert row[near].sum() == 0
        assert row.sum() > 30
    assert weight.sum() == 86  # the caller's own weights stay


def test_a_look_counts_only_if_no_stretch_gets_worse() -> None:
    gains = torch.tensor([[0.02, 0.30, 0.03], [0.02, -0.01, 0.04], [0.02, 0.30, 0.02]])
    assert best_look(gains) == (2, True)
    assert best_look(gains - 0.025)[1] is False
    assert best_look(torch.full((3, 2), 0.001))[1] is False  # no more than chance


def test_the_richest_part_of_a_long_clip_is_taken() -> None:
    usable = torch.zeros(1000, dtype=torch.bool)
    usable[700:760] = True
    part = richest(usable, 100)
    assert part.stop - part.start == 100
    assert int(usable[part].sum()) == 60
    assert richest(usable, 1000) == slice(0, 1000)


def test_a_long_clip_takes_no_longer_than_its_richest_part(
    dubber: Dubber, samples: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dubbing.adaptation.MAX_FRAMES", 5 * RATE)
    outcome = Adapter(dubber.weights.geometry, dubber.weights.morphable).adapt(
        speaker(dubber, samples, late=1)
    )
    assert outcome.speech_s == 5.0
    assert outcome.lag == pytest.approx(1.0, abs=0.25)


def test_it_works_whatever_mode_the_caller_is_in(dubber: Dubber, samples: Tensor) -> None:
    speech = speaker(dubber, samples)
    adapter = Adapter(dubber.weights.geometry, dubber.weights.morphable)
    plain = adapter.adapt(speech)
    with torch.inference_mode():
        same = adapter.adapt(speech)
    assert plain.facts() == same.facts()


def test_a_step_can_stop_the_work(dubber: Dubber, samples: Tensor) -> None:
    class Stop(Exception):
        pass

    def stop() -> None:
        raise Stop

    with pytest.raises(Stop):
        Adapter(dubber.weights.geometry, dubber.weights.morphable).adapt(
            speaker(dubber, samples), stop
        )

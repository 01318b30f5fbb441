"""Options of a dub: one documented dataclass is the API, the command line's help and the JSON."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar, get_args, get_type_hints

from dubbing.errors import OptionInvalid
from dubbing.face.limits import FaceLimits
from dubbing.media.limits import MAX_PIXELS, MAX_SECONDS, Limits
from dubbing.speaker_choice import SpeakerChoice

LENGTHS = ("audio", "video", "shortest", "longest")
TAILS = ("rest", "original")
NVENC = ("h264_nvenc", "hevc_nvenc", "av1_nvenc")
CODECS = ("libx264", "libx265", "libsvtav1", "libvpx-vp9", "ffv1", "prores_ks", "dnxhd", *NVENC)
PRESETS = (
    "ultrafast",
    "superfast",
    "veryfast",
    "faster",
    "fast",
    "medium",
    "slow",
    "slower",
    "veryslow",
)
AUDIO_CODECS = ("auto", "aac", "flac", "alac", "opus")
DEVICES = ("auto", "cpu", "cuda")

Options = TypeVar("Options")


def option(
    help: str,
    default: Any = MISSING,
    *,
    reason: str = "",
    choices: tuple[str, ...] = (),
    low: float | None = None,
    high: float | None = None,
) -> Any:
    """A dataclass field that carries its own help, the reason for its default, and its range.

    `low` and `high` are inclusive; both, like `choices`, are checked by `check_fields`.
    """
    metadata = {"help": help, "reason": reason, "choices": choices, "low": low, "high": high}
    return dataclasses.field(default=default, metadata=metadata)


def check_fields(options: Any) -> None:
    """Check every field of a dataclass instance against its own metadata.

    Raises:
        OptionInvalid: names the first field whose value is of the wrong type, outside its range,
            or none of its choices, with what is allowed.
    """
    hints = get_type_hints(type(options))
    for item in fields(options):
        value = getattr(options, item.name)
        _check_type(item.name, value, hints[item.name])
        choices = item.metadata.get("choices", ())
        if choices and value not in choices:
            raise OptionInvalid(
                f"{item.name} is {value!r}, which is none of {', '.join(choices)}",
                hint=f"see --{item.name.replace('_', '-')}",
            )
        _check_range(item.name, value, item.metadata.get("low"), item.metadata.get("high"))


def _check_type(name: str, value: object, hint: Any) -> None:
    allowed = tuple(kind for kind in get_args(hint) or (hint,))
    if float in allowed:
        allowed = (*allowed, int)
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
        names = " or ".join("null" if kind is NoneType else kind.__name__ for kind in allowed)
        raise OptionInvalid(f"{name} is {value!r}, a {type(value).__name__}; it has to be {names}")


def _check_range(name: str, value: Any, low: float | None, high: float | None) -> None:
    if value is None or (low is None and high is None):
        return
    below = low is not None and not value >= low  # "not >=" also refuses a NaN
    above = high is not None and not value <= high
    if below or above:
        if low is not None and high is not None:
            allowed = f"between {low} and {high}"
        else:
            allowed = f"at least {low}" if low is not None else f"at most {high}"
        raise OptionInvalid(f"{name} is {value}; it has to be {allowed}")


def to_dict(options: Any) -> dict[str, Any]:
    """Field values of a dataclass instance as JSON values (paths become strings)."""
    values = {item.name: getattr(options, item.name) for item in fields(options)}
    return {k: str(v) if isinstance(v, Path) else v for k, v in values.items()}


def from_dict(kind: type[Options], values: dict[str, Any]) -> Options:
    """Build the options dataclass `kind` from `to_dict`'s values; missing fields get defaults.

    Raises:
        OptionInvalid: an unknown or missing field, or a value that its field does not allow.
    """
    hints = get_type_hints(kind)
    known = {item.name: item for item in fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(set(values) - set(known)):
        raise OptionInvalid(
            f"unknown option {', '.join(unknown)}", hint=f"known are {', '.join(sorted(known))}"
        )
    needed = {name for name, item in known.items() if item.default is MISSING}
    if missing := sorted(needed - set(values)):
        raise OptionInvalid(f"option {', '.join(missing)} is missing")
    made = {}
    for name, value in values.items():
        is_path = Path in (get_args(hints[name]) or (hints[name],))
        made[name] = Path(value) if is_path and isinstance(value, str) else value
    return kind(**made)


@dataclass(frozen=True)
class DubOptions:
    """What a caller can choose about one dub. Values are checked on construction.

    Every result is marked as synthetic in its metadata; no option removes the marking.

    Raises:
        OptionInvalid: a value outside its range, or none of its choices.
    """

    length: str = option(
        "How long the result is when speech and picture differ in length. Where the picture has to "
        "go on it goes on by ping-pong; where speech ends first the mouth rests.",
        "audio",
        reason="nobody wants the end of the new speech cut off",
        choices=LENGTHS,
    )
    tail: str = option(
        "What the lips do where the picture goes on after the speech: 'rest' keeps the mouth at "
        "the speaker's rest; with 'original' the source's own frames come back, eased over 4 "
        "frames. There is no sound there.",
        "rest",
        reason="original lips would speak without a sound",
        choices=TAILS,
    )
    speaker: str = option(
        "Which face speaks: 'largest'; 'active', the one whose lips move with the video's own "
        "sound; the number of a face track as 'dub inspect' shows it; or a place x,y@t, the face "
        "at that pixel t seconds after the first frame.",
        "largest",
        reason="the speaker is nearly always the face nearest to the camera",
    )
    max_yaw: float = option(
        "Frames in which the head is turned farther to a side than this, in degrees, pass through.",
        50.0,
        reason="beyond it half the mouth is hidden",
        low=0.0,
        high=90.0,
    )
    min_face: float = option(
        "Frames whose face is smaller than this, in pixels, pass through.",
        48.0,
        reason="a smaller face has no lips to speak of",
        low=16.0,
        high=4096.0,
    )
    min_confidence: float = option(
        "Frames whose face is tracked less surely than this, 0 to 1, pass through; 0.5 is a mean "
        "distance of 2 % of the face's height between the fitted mesh and the landmarks.",
        0.5,
        reason="beyond it the mesh is not on a face",
        low=0.0,
        high=1.0,
    )
    min_sharpness: float = option(
        "Frames whose face is more blurred than this, 0 to 1, pass through; usual footage has 0.45 "
        "to 0.7 whatever its size.",
        0.35,
        reason="there a blur of a twentieth of the face hides what the lips do",
        low=0.0,
        high=1.0,
    )
    min_visible: float = option(
        "Frames whose lower face correlates less than this, -1 to 1, with how it usually looks in "
        "its shot pass through: something is before the mouth. -1 dubs them.",
        0.5,
        reason="no free mouth in 5,381 frames of 27 clips is below it, 99 % of covered ones are",
        low=-1.0,
        high=1.0,
    )
    style: Path | None = option(
        "Another clip whose way of speaking (how far and how the mouth moves) is taken over.",
        None,
        reason="without it the style is that of the video itself, which keeps the persona",
    )
    style_strength: float = option(
        "How much of the speaking style is applied, 0 to 1.5; 0 is the average speaker, 1 the "
        "style as measured, above 1 exaggerates it.",
        1.0,
        reason="as measured; beyond 1.5 lips leave the range seen in training",
        low=0.0,
        high=1.5,
    )
    adapt: bool = option(
        "Also learn from the video's own speech how this speaker's lips follow it; where what is "
        "held back does not get better, nothing changes.",
        False,
        reason="it costs up to the length of the clip and helps some speakers only",
    )
    codec: str = option(
        "Picture codec of the result; those of nvenc encode on an NVIDIA card that has an encoder.",
        "libx264",
        reason="plays everywhere, and every build of ffmpeg has it",
        choices=CODECS,
    )
    crf: int = option(
        "Picture quality of the encode, 0 (best) to 51.",
        14,
        reason="what is not dubbed should look like the source, at a size still fit for sharing",
        low=0,
        high=51,
    )
    preset: str = option(
        "Effort of the picture encoder; slower gives smaller files.",
        "medium",
        reason="the encoder's own default: the networks cost more time than it does",
        choices=PRESETS,
    )
    decoder: str = option(
        "Where the video is decoded: by the processor, or by an NVIDIA card (nvdec).",
        "software",
        reason="works everywhere; a card saves processor time for the encoder",
        choices=("software", "nvdec"),
    )
    audio_codec: str = option(
        "Sound codec of the result; 'auto' copies the speech bit by bit where the container takes "
        "its codec, and encodes it once otherwise.",
        "auto",
        reason="the user's sound should arrive as it is",
        choices=AUDIO_CODECS,
    )
    max_pixels: int = option(
        "Refuse video whose pictures have more pixels than this.",
        MAX_PIXELS,
        reason="twice 8K; a header that promises more is damaged or hostile",
        low=1,
    )
    max_duration: float = option(
        "Refuse video or speech longer than this many seconds.",
        float(MAX_SECONDS),
        reason="six hours; speech and motion are held in memory, about 150 kB per second",
        low=0.2,
    )
    overwrite: bool = option(
        "Replace the output file if it exists.",
        False,
        reason="a result of hours should not vanish by a typing error",
    )
    resume: bool = option(
        "Go on with an interrupted run of the same job after its last finished segment; where "
        "there is none, start.",
        False,
        reason="what an earlier run left is not taken over unasked",
    )
    clean: bool = option(
        "Remove what an interrupted run to this output left, and start afresh.",
        False,
        reason="finished segments may be worth hours",
    )
    segment_seconds: float = option(
        "Length of the pieces that are rendered and kept one by one; an interrupted run goes on "
        "after the last finished one.",
        10.0,
        reason="a few minutes of work at most are lost; encoders put a key frame there anyway",
        low=0.1,
        high=600.0,
    )
    report: Path | None = option(
        "Also write a report of the job (frames, times, faces, what passed through) to this JSON "
        "file.",
        None,
        reason="the caller of the API gets the report as an object anyway",
    )

    def __post_init__(self) -> None:
        for name in ("style", "report"):
            if isinstance(value := getattr(self, name), str):
                object.__setattr__(self, name, Path(value))
        check_fields(self)
        if self.resume and self.clean:
            raise OptionInvalid(
                "resume and clean contradict each other",
                hint="one goes on with an unfinished run, the other drops it",
            )
        SpeakerChoice.parse(self.speaker)

    @property
    def speaker_choice(self) -> SpeakerChoice:
        """Which face is meant."""
        return SpeakerChoice.parse(self.speaker)

    @property
    def face_limits(self) -> FaceLimits:
        """Which frames of it can be dubbed."""
        return FaceLimits(**{f.name: getattr(self, f.name) for f in fields(FaceLimits)})

    @property
    def limits(self) -> Limits:
        """What is accepted as input."""
        return Limits(self.max_pixels, self.max_duration)

    def to_json(self) -> str:
        """The options as a JSON object, one member per field."""
        return json.dumps(to_dict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> DubOptions:
        """Options from `to_json`'s text; fields that are absent get their defaults.

        Raises:
            OptionInvalid: not a JSON object, an unknown field, or a value that is not allowed.
        """
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise OptionInvalid(f"the options are not JSON: {error}") from error
        if not isinstance(values, dict):
            raise OptionInvalid("the options have to be a JSON object")
        return from_dict(cls, values)


def check_device_name(name: str) -> str:
    """`name` if it is a device the engine knows by that name.

    Raises:
        OptionInvalid: none of `DEVICES`.
    """
    if name not in DEVICES:
        raise OptionInvalid(f"device is {name!r}, which is none of {', '.join(DEVICES)}")
    return name

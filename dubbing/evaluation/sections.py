"""The tables of stage 1's report: what is measured, what it is compared with, what is asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from dubbing.evaluation import protocols, summaries
from dubbing.evaluation.clips import Clip, Samples
from dubbing.evaluation.protocols import ALIGNED, MEAN, OTHER, REST, Offsets, Row
from dubbing.evaluation.speed import stage1_speed
from dubbing.evaluation.studio import Studio
from dubbing.evaluation.summaries import Summary
from dubbing.evaluation.targets import Target
from dubbing.media.audio import SPEECH_RATE
from dubbing.models.style_encoder import StyleEncoder

NO_MOVEMENT = dict.fromkeys(
    ("opening", "width", "jaw", "amplitude", "closures met", "false closures"), 0.0
)
"""What a mouth that never moves reaches; without a range of its own it never counts as closed"""

CLEARLY = 0.02  # of StyleSim; the paper's own falls by 0.04 without style

PLAUSIBLE = (0.5, 1.5)  # amplitude in another language over that of the speaker's own speech

Jobs = list[tuple[str, Callable[[], Row]]]


@dataclass(frozen=True)
class Section:
    """One table of the report.

    Attributes:
        name: of its CSV; title: what it shows.
        lines: the printed lines, each {column: value}; rows: one per clip, for the CSV.
        targets: what is asked of it.
    """

    name: str
    title: str
    lines: list[Row]
    rows: list[Row]
    targets: list[Target]

    def facts(self) -> dict[str, Any]:
        """What a report's JSON holds of it."""
        return {
            "name": self.name,
            "title": self.title,
            "summary": self.lines,
            "rows": self.rows,
            "targets": [{"name": t.name, "value": t.value, "met": t.met} for t in self.targets],
        }


@dataclass(frozen=True)
class Measuring:
    """What the sections measure.

    Attributes:
        studio: the checkpoint at work; clips: all clips that count, among which other speakers are
            found; shown: those that are measured.
        offsets: of the clips whose own offset between sound and lips is known.
        errors: receives one line for everything that could not be measured; note: is told of
            every step.
    """

    studio: Studio
    clips: Sequence[Clip]
    shown: Sequence[Clip]
    offsets: Offsets = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    note: Callable[[str], None] = lambda text: None

    def rows(self, jobs: Jobs) -> list[Row]:
        """Figures of the jobs that succeed."""
        return protocols.collect(jobs, self.errors, self.note)


def self_dub(at: Measuring) -> Section:
    """Every clip driven by its own sound."""
    rows = at.rows(
        [
            (f"self-dub {c.name}", partial(protocols.self_dub, at.studio, c, at.clips, at.offsets))
            for c in at.shown
        ]
    )
    ours = summaries.lips(rows)
    columns = {"ours": ours}
    if at.offsets:
        columns["offset removed"] = summaries.agreement(rows, ALIGNED)
    columns["other audio"] = summaries.lips(rows, OTHER)
    for words, prefix in (("rest pose", REST), ("mean pose", MEAN)):
        columns[words] = {
            **NO_MOVEMENT,
            summaries.LMD: summaries.percent(summaries.mean(rows, f"{prefix}lmd")),
            "lmd under rest": summaries.under_rest(rows, prefix),
        }
    near = ours["lag within 1 frame"]
    targets = [
        Target("lip opening: correlation at lag 0 >= 0.65", ours["opening"], low=0.65),
        Target("lip width: correlation at lag 0 >= 0.4", ours["width"], low=0.4),
        Target("jaw: correlation at lag 0 >= 0.55", ours["jaw"], low=0.55),
        Target("amplitude of the opening in 0.85..1.15", ours["amplitude"], 0.85, 1.15),
        Target("LMD under that of the rest pose by >= 0.25", ours["lmd under rest"], low=0.25),
        Target("mean best lag rounds to 0", ours["lag"], -0.4999, 0.4999),
        Target("best lag within 1 frame in >= 0.9 of the clips", near, low=0.9),
        Target("closures met >= 0.8", ours["closures met"], low=0.8),
    ]
    title = f"Self-dub: {len(rows)} clips"
    return Section("self_dub", title, side_by_side(columns), rows, targets)


def same_speaker(at: Measuring) -> Section:
    """Persona of one clip, sound of another of the same speaker."""
    measure = partial(protocols.same_speaker, at.studio)
    rows = at.rows(
        [
            (f"{a.name} speaks {b.name}", partial(measure, a, b, at.clips, at.offsets))
            for a, b in protocols.pairs_of(at.shown)
        ]
    )
    ours = summaries.agreement(rows)
    columns = {"ours": ours}
    if at.offsets:
        columns["offset removed"] = summaries.agreement(rows, ALIGNED)
    columns["other audio"] = summaries.agreement(rows, OTHER)
    title = f"Same speaker, another clip's sound: {len(rows)} ordered pairs"
    targets = [Target("same speaker: opening >= 0.6", ours["opening"], low=0.6)]
    return Section("same_speaker", title, side_by_side(columns), rows, targets)


SILENCE_LINES = {
    "movement": "digital silence: std of opening / that in speech",
    "rest": "digital silence: opening off rest, share of rest",
    "rest_range": "digital silence: opening off rest, share of its range in speech",
    "ease": "seconds to ease",
    "snap": "largest step in easing / 95th percentile in speech",
    "pauses": "pauses of the clip: movement / that in speech, ours",
    "real pauses": "the same of the real speaker",
}


def silence(at: Measuring) -> Section:
    """Digital silence, and the clips' own pauses."""
    rows = at.rows(
        [(f"silence {c.name}", partial(protocols.silence, at.studio, c)) for c in at.shown]
    )
    lines: list[Row] = [
        {
            "figure": words,
            "clips": len(summaries.known(rows, key)),
            "mean": summaries.mean(rows, key),
            "median": summaries.median(rows, key),
            "worst": summaries.largest(rows, key),
        }
        for key, words in SILENCE_LINES.items()
    ]
    movement, rest = summaries.mean(rows, "movement"), summaries.mean(rows, "rest")
    targets = [
        Target("silence: std of opening <= 0.1 of that in speech", movement, high=0.1),
        Target("silence: opening within 0.1 of rest", rest, high=0.1),
    ]
    title = "Silence: 2 s within the speech and 2 s after it; the clips' pauses of 0.6 s and more"
    return Section("silence", title, lines, rows, targets)


STYLE_LINES = {
    "real clips": "two real clips of the speaker",
    "dub": "dub with other speakers' sound",
    "own words": "dub with the real clip's own sound",
    "without style": "dub without style (strength 0)",
    "another's style": "dub with another speaker's style",
    "still": "mouth held at its mean over the clip",
    "others' real clips": "real clips of other speakers",
}


def style(at: Measuring, encoder: StyleEncoder) -> Section:
    """StyleSim of dubs with another real clip of the same speaker."""
    rows = at.rows(
        [
            (
                f"style {a.name}, {b.name}",
                partial(protocols.style, at.studio, encoder, a, b, at.clips),
            )
            for a, b in protocols.pairs_of(at.shown)
        ]
    )
    found = {key: summaries.mean(rows, key) for key in STYLE_LINES}
    lines: list[Row] = [
        {"style of a real clip of the speaker, against": words, "StyleSim": found[key]}
        for key, words in STYLE_LINES.items()
    ]
    behind, drop = (
        _difference(found[a], found[b])
        for a, b in (("real clips", "dub"), ("dub", "without style"))
    )
    targets = [
        Target("StyleSim: below that of real clips by <= 0.03", behind, high=0.03),
        Target(f"StyleSim: falls without style by >= {CLEARLY}", drop, low=CLEARLY),
    ]
    title = f"StyleSim: cosine of style codes, {len(rows)} ordered pairs of clips of one speaker"
    return Section("style", title, lines, rows, targets)


def _difference(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def languages(at: Measuring, clips: Sequence[Clip], speech: dict[str, Samples]) -> Section:
    """The speakers of some clips driven by every language there is sound of."""
    jobs: Jobs = [
        (f"{clip.name} in {name}", partial(protocols.language, at.studio, clip, name, samples))
        for clip in clips
        for name, samples in speech.items()
    ]
    rows = at.rows(jobs)
    lines: list[Row] = []
    for name, samples in speech.items():
        some = [row for row in rows if row["language"] == name]
        line: Row = {"language": name, "seconds": len(samples) / SPEECH_RATE, "dubs": len(some)}
        line["finite"] = bool(some) and all(row["finite"] for row in some)
        for figure in ("amplitude", "largest opening", "closed"):
            line[figure] = summaries.mean(some, figure)
        lines.append(line)
    low, high = PLAUSIBLE
    good = sum(row["finite"] and low <= row["amplitude"] <= high for row in rows)
    words = f"languages: share of dubs finite and {low}..{high} of own speech's amplitude = 1"
    title = (
        f"{len(speech)} languages spoken by {', '.join(clip.name for clip in clips)}; amplitude "
        "and largest opening in those of their own speech"
    )
    targets = [Target(words, good / len(jobs) if jobs else None, low=1.0)]
    return Section("languages", title, lines, rows, targets)


def speed(at: Measuring) -> Section:
    """Stage 1 with its audio encoder over a minute of speech.

    Raises:
        DubbingError: the first clip can't be prepared.
    """
    clip = at.shown[0]
    found = stage1_speed(at.studio.dubber, at.studio.persona(clip), clip.samples)
    words = {
        "seconds of speech per second: stage 1, encoder included": found.whole,
        "the same per second of processor time": found.processor,
        "the audio encoder alone, per second": found.encoder,
        "threads of torch": found.threads,
        "cores": found.cores,
        "load average of the minute before": found.load,
    }
    lines: list[Row] = [{"figure": figure, "value": value} for figure, value in words.items()]
    row = asdict(found) | {"device": str(at.studio.dubber.device)}
    target = Target("speed: seconds of speech per second >= 20", found.whole, low=20)
    return Section("speed", "Speed over 60 s of speech", lines, [row], [target])


def side_by_side(columns: dict[str, Summary]) -> list[Row]:
    """Summaries as the columns of a table, one line per figure that one of them has."""
    figures = dict.fromkeys(name for summary in columns.values() for name in summary)
    return [
        {"figure": figure, **{name: column.get(figure) for name, column in columns.items()}}
        for figure in figures
    ]

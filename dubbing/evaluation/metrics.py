"""Every figure of an evaluation: what it is, on which crop, which way is better, what it misses."""

from __future__ import annotations

from dataclasses import dataclass

from dubbing.evaluation.protocol_names import (
    CROSS,
    LONG,
    PROTOCOLS,
    SAME,
    SELF,
    SILENCE,
    WITH_TRUTH,
)

HIGH, LOW, ONE, ZERO, NONE = "higher", "lower", "nearer to 1", "nearer to 0", "read only"
SPOKEN = (SELF, SAME, CROSS, LONG)


@dataclass(frozen=True)
class Metric:
    """One figure.

    Attributes:
        name: column in CSV and JSON; label: in tables; better: which way is better.
        protocols: in which it is taken; definition: how; blind: what it can't see.
        group: heading in the docs and the page.
    """

    name: str
    label: str
    better: str
    protocols: tuple[str, ...]
    group: str
    definition: str
    blind: str = ""


CROP = "256-px crop (1.5 x the face's height, steady over time, placed by the source's face)"
FIRST = "frames of the source's first pass, matched by time"

METRICS = (
    Metric("success", "success", HIGH, PROTOCOLS, "robustness",
           "share of all inputs for which a video came out that decodes, carries sound, is at "
           "least as long as the speech less 0.2 s, and shows a face in 95 % of its frames; every "
           "other figure is a mean over these only", "whether the result is any good"),
    Metric("opening", "opening r", HIGH, WITH_TRUTH, "lips",
           "Pearson correlation over time of the inner-lip opening, tracked in the result, with "
           "the truth's, at lag 0, 25 Hz, free of head pose", "size and offset of the movement"),
    Metric("width", "width r", HIGH, WITH_TRUTH, "lips", "the same of the mouth's width",
           "as above"),
    Metric("jaw", "jaw r", HIGH, WITH_TRUTH, "lips", "the same of nose base to chin", "as above"),
    Metric("amplitude", "amplitude", ONE, WITH_TRUTH, "lips",
           "standard deviation of the opening over that of the truth", "when it opens"),
    Metric("lag", "lag, frames", ZERO, WITH_TRUTH, "lips",
           "frames at 25 Hz, within +-10, by which the result's opening is late behind the truth's "
           "(place of the highest correlation)", "an offset that the truth's own sound has"),
    Metric("closures", "closures met", HIGH, WITH_TRUTH, "lips",
           "share of the truth's closures (opening under 15 % of its range) of which the result "
           "is closed within 2 frames", "a mouth that is always shut: see false closures"),
    Metric("false closures", "false closures", LOW, WITH_TRUTH, "lips",
           "share of clearly open true frames in which the result is closed"),
    Metric("lmd", "LMD mesh, %", LOW, WITH_TRUTH, "lips",
           "mean distance of the 80 lip vertices to the truth's, free of head pose, in per cent of "
           "the true distance of the outer eye corners; by the mesh network that also drives the "
           "engine", "everything but the lips"),
    Metric("lmd 68", "LMD 68, %", LOW, WITH_TRUTH, "lips",
           "the same on the 20 mouth points of an independent 68-point detector, faces laid over "
           "each other by eyes and bridge of the nose", "everything but the lips"),
    Metric("psnr face", "PSNR face, dB", HIGH, (SELF,), "picture",
           f"{CROP}; {FIRST}; all channels", "what people look at: half a pixel of shift costs as "
           "much as a wrong tooth"),
    Metric("psnr lower", "PSNR lower, dB", HIGH, (SELF,), "picture",
           "the same where the truth's mesh has the lower face, widened by 8 px", "as above"),
    Metric("ssim face", "SSIM face", HIGH, (SELF,), "picture",
           "SSIM (Gaussian window of 1.5 px, three channels) of the crop", "colour; likes blur"),
    Metric("ssim lower", "SSIM lower", HIGH, (SELF,), "picture", "the same in the lower face",
           "as above"),
    Metric("st-lpips", "ST-LPIPS", LOW, (SELF,), "picture",
           "shift-tolerant LPIPS of the crop, AlexNet trunk", "movement"),
    Metric("sharp mouth", "sharp mouth", ONE, PROTOCOLS, "picture",
           "variance of the Laplacian in the box around the lips over that of the source's frame "
           "(median over frames)", "noise counts as sharpness; an open mouth is sharper"),
    Metric("sharp cheeks", "sharp cheeks", ONE, PROTOCOLS, "picture",
           "the same in two squares beside the mouth", "as above"),
    Metric("frechet", "Fréchet", LOW, PROTOCOLS, "picture",
           "Fréchet distance between all crops of the results and all of the sources, in the "
           "features of the network that is stated; one number per system",
           "movement; single bad frames; sets under some thousands of pictures are biased upwards"),
    Metric("csim", "CSIM", HIGH, PROTOCOLS, "identity",
           "cosine of the face embeddings of result and source frame (network stated)",
           "whether the mouth is this person's own"),
    Metric("style", "StyleSim", HIGH, SPOKEN, "identity",
           "cosine of the style code of the result's tracked movement with that of a real clip of "
           "the speaker, another one where there is one", "words; the code is our own network's"),
    Metric("sync conf", "sync confidence", HIGH, SPOKEN, "sync",
           "our sync expert for mouth pictures: median over offsets of the mean distance, less its "
           "minimum", "a constant delay: read it with the offset"),
    Metric("sync dist", "sync distance", LOW, SPOKEN, "sync", "the minimum itself, 0..2",
           "as above"),
    Metric("sync offset", "offset, frames", ZERO, SPOKEN, "sync",
           "frames at 25 Hz by which the picture is late where that minimum lies"),
    Metric("lse-c", "LSE-C", HIGH, SPOKEN, "sync",
           "the same confidence by SyncNet with the weights given", "a constant delay"),
    Metric("lse-d", "LSE-D", LOW, SPOKEN, "sync", "the same distance by SyncNet",
           "a constant delay"),
    Metric("lse offset", "LSE offset", ZERO, SPOKEN, "sync", "where SyncNet finds the minimum"),
    Metric("leak", "LipLeak", LOW, (SILENCE,), "silence",
           "share of the frames of digital silence (0.2 s of easing left out) in which the mouth "
           "is open: above 15 % of the source's own range of opening",
           "closed lips that tremble"),
    Metric("leak r", "leak r", ZERO, (SILENCE,), "silence",
           "correlation there of the opening with the source's: the old words shining through"),
    Metric("flicker", "flicker", ONE, PROTOCOLS, "time",
           "mean second difference over time of the luma, over the source's, in lower-face pixels "
           "whose geometry stands still in both; 25 consecutive frames",
           "slow drifts; faces that never stand still"),
    Metric("seam gradient", "seam gradient", ONE, PROTOCOLS, "seam",
           "gradient across the border of what was changed (found by the difference to the "
           "source), over the source's at the same place", "a border inside strong edges"),
    Metric("seam colour", "seam CIE 2000", LOW, PROTOCOLS, "seam",
           "colour difference to the source just inside that border, averaged over 3 px",
           "a step where the light really changed"),
    Metric("speed", "s per s", LOW, PROTOCOLS, "cost",
           "wall-clock seconds per second of result on the machine stated", "quality"),
    Metric("memory", "peak, MiB", LOW, PROTOCOLS, "cost",
           "largest resident memory: of the program's process, or, for the engine, of this one "
           "with the judges in it", "memory of a GPU"),
)  # fmt: skip

BY_NAME = {metric.name: metric for metric in METRICS}


def of_protocol(protocol: str) -> list[Metric]:
    """The figures of one protocol, in order."""
    return [metric for metric in METRICS if protocol in metric.protocols]

"""Files, names and headers that are damaged or mean harm."""

from __future__ import annotations

import ast
import struct
import time
import zlib
from dataclasses import replace
from pathlib import Path

import dubbing
from dubbing.errors import DubbingError, InputNotFound, InputTooLarge, OutputUnwritable
from dubbing.evaluation.cases.chain import run_chain, same_times
from dubbing.evaluation.cases.clips import ClipRecipe, make_clip, make_sound, tone
from dubbing.evaluation.cases.registry import Bench, case, check
from dubbing.evaluation.cases.times import speech
from dubbing.media.audio import load_speech
from dubbing.media.limits import Limits
from dubbing.media.mux import mux
from dubbing.media.probe import require_audio, require_video
from dubbing.media.reader import VideoReader

TOPIC = "hostile"
GIANT = 100_000
NAMES = (
    "two words.mp4",
    'it\'s "quoted".mp4',
    "-dash.mp4",
    "Grüße 你好 🎬.mp4",
    "new\nline.mp4",
    "a:b|c.mp4",
    "$(touch harm);`touch harm`.mp4",
    "per%03dcent.mp4",
    "[x]*?{a,b}.mp4",
    "http:.mp4",
    "trailing .mp4",
)


def _refusal(path: Path, limits: Limits | None = None) -> str:
    """The name of the error with which `path` is refused as a video, "" where it is taken."""
    try:
        require_video(path, limits or Limits())
        with VideoReader(path) as reader:
            _ = reader.index.count
    except DubbingError as error:
        return type(error).__name__
    return ""


def _png(width: int, height: int) -> bytes:
    """A PNG file that promises that many pixels and holds few."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


@case(TOPIC, "headers that promise 100000 x 100000 pixels")
def giant_headers(bench: Bench) -> str:
    files = {
        "a.png": _png(GIANT, GIANT),
        "b.png": _png(16000, 16000),
        "a.y4m": f"YUV4MPEG2 W{GIANT} H{GIANT} F25:1\nFRAME\n".encode() + bytes(5000),
        "b.y4m": b"YUV4MPEG2 W16000 H16000 F25:1\nFRAME\n" + bytes(5000),
    }
    clip = make_clip(bench.folder / "in.avi", ClipRecipe("mpeg4", options={"q": "5"}))
    size = struct.pack("<II", 64, 48)
    data = clip.read_bytes()
    check(size in data, "the header was not found")
    files["a.avi"] = data.replace(size, struct.pack("<II", GIANT, GIANT))
    start = time.perf_counter()
    words = []
    for name, content in files.items():
        path = bench.folder / name
        path.write_bytes(content)
        word = _refusal(path)
        check(
            word != "" or name == "a.avi", f"{name} was taken"
        )  # the pictures have their own size
        words.append(word or "read")
    seconds = time.perf_counter() - start
    check(seconds < 10, f"{seconds:.1f} s")
    return f"{', '.join(words)} in {seconds:.1f} s"


@case(TOPIC, "limits of size and length")
def limits(bench: Bench) -> str:
    clip = make_clip(bench.folder / "in.mp4", ClipRecipe(pts=range(40)))
    words = [_refusal(clip, Limits(pixels=64 * 48 - 1)), _refusal(clip, Limits(seconds=1.5))]
    check(words == [InputTooLarge.__name__] * 2, f"answers are {words}")
    check(_refusal(clip, Limits(64 * 48, 1.6)) == "", "refused within the limits")
    sound = speech(bench, 2.0)
    try:
        load_speech(sound, Limits(seconds=1.9))
    except InputTooLarge:
        return "both refused, at the limit taken"
    check(False, "long sound was taken")
    return ""


@case(TOPIC, "cut off anywhere")
def cut_off(bench: Bench) -> str:
    outcomes = []
    for suffix, codec in ((".mp4", "libx264"), (".mkv", "libx264"), (".ts", "libx264")):
        recipe = ClipRecipe(codec, pts=range(20), options={"crf": "10", "g": "5", "bf": "2"})
        data = make_clip(bench.folder / f"whole{suffix}", recipe).read_bytes()
        for percent in (1, 10, 50, 90, 99):
            cut = bench.folder / f"{percent}{suffix}"
            cut.write_bytes(data[: len(data) * percent // 100])
            word = _refusal(cut)
            if not word:
                output = bench.folder / f"{percent}-{suffix[1:]}.mkv"
                same_times(run_chain(cut, speech(bench), output))
            outcomes.append(word or "read")
    return f"{outcomes.count('read')} read as far as they go, the others {set(outcomes) - {'read'}}"


@case(TOPIC, "0 frames per second")
def no_rate(bench: Bench) -> str:
    figures = []
    frame = b"FRAME\n" + bytes(64 * 48 * 3 // 2)
    y4m = bench.folder / "in.y4m"
    y4m.write_bytes(b"YUV4MPEG2 W64 H48 F0:0\n" + frame * 6)
    data = make_clip(bench.folder / "in.avi", ClipRecipe("mpeg4", options={"q": "5"})).read_bytes()
    place = data.index(b"strh") + 8 + 20  # scale and rate of the stream header
    check(struct.unpack_from("<II", data, place)[1] == 25, "the rate was not found")
    for scale, rate in ((0, 0), (1, 0), (0, 25)):
        path = bench.folder / f"{scale}-{rate}.avi"
        path.write_bytes(data[:place] + struct.pack("<II", scale, rate) + data[place + 8 :])
        figures.append(_lives(bench, path))
    figures.append(_lives(bench, y4m))
    return ", ".join(figures)


def _lives(bench: Bench, path: Path) -> str:
    """Refused with a reason, or dubbed with increasing times."""
    word = _refusal(path)
    if word:
        return word
    same_times(run_chain(path, speech(bench), bench.folder / f"{path.stem}.mkv"))
    with VideoReader(path) as reader:
        return f"{reader.index.count} frames in {float(reader.index.duration):.2f} s"


@case(TOPIC, "a single frame")
def one_frame(bench: Bench) -> str:
    figures = []
    for name, recipe in {
        "in.mp4": ClipRecipe(pts=[0]),
        "in.png": ClipRecipe("png", "rgb24", pts=[0], options={}),
        "in.jpg": ClipRecipe("mjpeg", "yuvj420p", pts=[0], options={"q": "3"}),
    }.items():
        source = make_clip(bench.folder / name, recipe)
        output = bench.folder / f"{source.suffix[1:]}.mkv"
        made = run_chain(source, speech(bench), output, length="audio")
        with VideoReader(output) as reader:
            figures.append(f"{name}: {reader.index.count} frames")
        check(made.plan.count == 20, f"{name}: {made.plan.count} frames for 0.8 s")
    return ", ".join(figures)


@case(TOPIC, "file names with spaces, quotes, dashes, newlines, commands, patterns")
def names(bench: Bench) -> str:
    plain = make_clip(bench.folder / "plain.mkv", ClipRecipe("ffv1", options={}, pts=range(4)))
    sound = make_sound(bench.folder / "plain.flac", "flac", tone(0.3, 16000), 16000)
    for number, name in enumerate(NAMES):
        inside, outside = bench.folder / f"in{number}", bench.folder / f"out{number}"
        inside.mkdir()
        outside.mkdir()
        source = inside / name.replace(".mp4", ".mkv")
        spoken = inside / name.replace(".mp4", ".flac")
        source.write_bytes(plain.read_bytes())
        spoken.write_bytes(sound.read_bytes())
        same_times(run_chain(source, spoken, outside / name, codec="libx264"))
        check([p.name for p in outside.iterdir()] == [name], f"{name!r}: other files appeared")
    harm = [p for p in (Path.cwd() / "harm", bench.folder / "harm") if p.exists()]
    check(not harm, "a command in a name was run")
    return f"{len(NAMES)} names, as input, sound and output"


@case(TOPIC, "a link as output: the link is replaced, its target untouched")
def linked_output(bench: Bench) -> str:
    clip = make_clip(bench.folder / "in.mp4", ClipRecipe(pts=range(4)))
    sound = speech(bench, 0.3)
    target, link = bench.folder / "precious.mp4", bench.folder / "link.mp4"
    target.write_bytes(b"precious")
    link.symlink_to(target)
    for overwrite in (False, True):
        try:
            mux(clip, sound, clip, link, overwrite=overwrite)
        except OutputUnwritable:
            check(not overwrite, "refused in spite of overwrite")
    check(target.read_bytes() == b"precious", "the target was changed")
    check(not link.is_symlink() and require_video(link).video is not None, "no result")
    nowhere = bench.folder / "nowhere.mp4"
    nowhere.symlink_to(bench.folder / "absent.mp4")
    try:
        mux(clip, sound, clip, nowhere)
        check(False, "a dangling link was replaced unasked")
    except OutputUnwritable:
        check(not (bench.folder / "absent.mp4").exists(), "written through the link")
    return "refused without --overwrite"


PLAYLISTS = {
    "list.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:1,\n{0}\n#EXT-X-ENDLIST\n",
    "list.mp4": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:1,\n{0}\n#EXT-X-ENDLIST\n",
    "remote.m3u8": "#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/x.ts\n#EXT-X-ENDLIST\n",
    "join.mp4": "ffconcat version 1.0\nfile '{0}'\n",
    "join.txt": "ffconcat version 1.0\nfile '{0}'\n",
    "session.sdp": "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n",
    "dash.mpd": '<?xml version="1.0"?><MPD><Period><BaseURL>{0}</BaseURL></Period></MPD>',
    "smil.xml": '<smil><body><video src="{0}"/></body></smil>',
}
URLS = (
    "http://127.0.0.1:9/a.mp4", "rtmp://127.0.0.1/a", "concat:a.mp4|b.mp4", "file:///etc/passwd",
    "pipe:0", "data:video/mp4;base64,AAAA", "subfile,,start,0,end,9,,:a.mp4", "lavfi:testsrc",
)  # fmt: skip


@case(TOPIC, "playlists, also by another name, and URLs")
def playlists(bench: Bench) -> str:
    secret = make_clip(bench.folder / "secret.ts", ClipRecipe(pts=range(4)))
    for name, text in PLAYLISTS.items():
        for content in (text.format(secret.name), text.format(secret)):
            path = bench.folder / name
            path.write_text(content, newline="")
            for look in (require_video, require_audio):
                try:
                    look(path)
                    check(False, f"{name} was followed")
                except DubbingError:
                    continue
    for url in URLS:
        try:
            require_video(url)
            check(False, f"{url} was opened")
        except InputNotFound:
            continue
    return f"{len(PLAYLISTS)} kinds and {len(URLS)} URLs refused"


def shell_uses(source: str) -> list[str]:
    """Calls in a Python source that go through a shell."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        given = {k.arg: ast.unparse(k.value) for k in node.keywords}
        if name in ("os.system", "os.popen") or given.get("shell", "False") != "False":
            found.append(f"{name} in line {node.lineno}")
    return found


@case(TOPIC, "no code of the engine starts a shell")
def no_shell(bench: Bench) -> str:
    files = list(Path(dubbing.__file__).parent.rglob("*.py"))
    for path in files:
        found = shell_uses(path.read_text())
        check(not found, f"{path.name}: {', '.join(found)}")
    check(len(shell_uses("os.system(x)\nsubprocess.run(x, shell=True)")) == 2, "blind")
    return f"{len(files)} files read"


@case(TOPIC, "the picture's size changes inside the clip")
def changing_size(bench: Bench) -> str:
    small = ClipRecipe(pts=range(5), options={"crf": "10", "bf": "0"})
    large = replace(small, pts=range(5, 10), size=(96, 80))
    joined = bench.folder / "in.ts"
    joined.write_bytes(
        b"".join(
            make_clip(bench.folder / f"{k}.ts", recipe).read_bytes()
            for k, recipe in enumerate((small, large))
        )
    )
    made = run_chain(joined, speech(bench), bench.folder / "out.mp4", codec="libx264")
    with VideoReader(made.output) as reader:
        sizes = {(f.frame.width, f.frame.height) for f in reader}
        check(sizes == {(64, 48)} and reader.index.count == 10, f"{sizes}, {reader.index.count}")
    return "10 frames, scaled to the first one's size"

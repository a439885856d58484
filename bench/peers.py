"""One mix, said in the language of each engine: ours, FFmpeg, GStreamer, melt, moviepy; and whether they really made
it.

A `Mix` is the neutral description; each function turns it into a `Command` with the same x264 preset, bit rate, GOP
and AAC. The settings of a peer are the fastest found for it; where its manual shows others, there are both. Every
encoded picture and sound is checked after the run, outside the timing: an engine that stops early, or leaves layers
out, looks fast. Where all is thrown away, what the engine says of it is. How runs are timed is `measure`'s business.
"""

import functools
import importlib.metadata
import inspect
import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.measure import OURS, Command, RunError

PRESET = "veryfast"
AUDIO_HZ = 48_000
AUDIO_BIT_RATE = 160_000  # what ours takes for stereo
NULL = None  # the sink that throws away: everything is decoded and composed, nothing encoded

Out = Path | None


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One source of a mix: its rectangle on the canvas in pixels, and how its sound joins the sum (pan −100…100)."""

    file: Path
    x: int = 0
    y: int = 0
    width: int = 0
    height: int = 0
    opacity: float = 1.0
    gain_db: float = 0.0
    pan: int = 0


@dataclass(frozen=True, kw_only=True)
class Mix:
    """What is to be made of which sources; the files last as long as the mix.

    folder   scratch folder for what an engine wants to read from a file
    """

    layers: Sequence[Layer]
    seconds: float
    folder: Path
    width: int = 0
    height: int = 0
    fps: int = 30
    picture: bool = True
    sound: bool = True

    @property
    def frames(self) -> int:
        """Video frames of the whole mix."""
        return round(self.seconds * self.fps)

    @property
    def bit_rate(self) -> int:
        """4 Mbit/s for 1080p, in proportion for others, but enough to know the smallest picture again."""
        return max(500_000, 4_000_000 * self.width * self.height // (1920 * 1080))

    @property
    def gop(self) -> int:
        """Two seconds."""
        return 2 * self.fps


def grid(files: Sequence[Path], *, width: int, height: int) -> list[Layer]:
    """The files side by side in as many columns as rows; width and height must divide evenly."""
    columns = math.isqrt(len(files))
    across, down = width // columns, height // columns
    return [
        Layer(file=file, x=n % columns * across, y=n // columns * down, width=across, height=down)
        for n, file in enumerate(files)
    ]


# ---------------------------------------------------------------------------------------------- the engines


def ours(mix: Mix, out: Out) -> Command:
    """Mashtun, by its command line."""
    guids = [f"cam{n}" for n in range(len(mix.layers))]
    video = [
        {
            "node": "VideoSourceNode",
            "streamGuid": guid,
            "destX": layer.x,
            "destY": layer.y,
            "destWidth": layer.width,
            "destHeight": layer.height,
            **({"opacity": layer.opacity} if layer.opacity != 1 else {}),
        }
        for guid, layer in zip(guids, mix.layers, strict=True)
    ]
    audio = [
        {"node": "AudioSourceNode", "streamGuid": guid, "gain": layer.gain_db, "pan": layer.pan}
        for guid, layer in zip(guids, mix.layers, strict=True)
    ]
    tree = {
        "rootVideoNode": {"node": "CompositorNode", "nodes": video} if mix.picture else None,
        "rootAudioNode": {"node": "SumNode", "nodes": audio} if mix.sound else None,
    }
    document = mix.folder / f"{_name(mix, out)}.json"
    document.write_text(json.dumps(tree))
    options = ["--duration", f"{mix.seconds:g}", "--audio-rate", str(AUDIO_HZ), *ours_told(out)]
    if mix.picture:
        options += ["--size", f"{mix.width}x{mix.height}", "--fps", str(mix.fps), "--preset", PRESET]
        options += ["--bit-rate", str(mix.bit_rate), "--gop", str(mix.gop)]
    for guid, layer in zip(guids, mix.layers, strict=True):
        options += ["--source", f"{guid}={layer.file}"]
    target = "null:" if out is None else str(out)
    argv = (sys.executable, "-m", "api.__main__", "render", str(document), target, *options)
    return Command(who=OURS, argv=argv, check=checked(mix, out) if out else counted(mix.frames, OURS_SAYS))


def ours_told(out: Out) -> tuple[str, str]:
    """How ours is told to say how far it is: where there is no file to look at, that is all there is to check."""
    return "--progress", "none" if out else "json"


def ff9(mix: Mix, out: Out, *, who: str = "ff9", overlay: bool = False, eased: bool = False) -> Command:
    """FFmpeg with bilinear scaling: xstack for grids, else (or with `overlay`) overlays; amix for the sound.

    eased  B-frames of films that are shown at half their size or less are not deblocked, as ours are not.
    """
    program = ffmpeg()
    if program is None:
        return Command(who=who, absent="no imageio-ffmpeg and no ffmpeg")
    graph, maps = [], []
    if mix.picture:
        stacked = not overlay and len(mix.layers) > 1 and all(layer.opacity == 1 for layer in mix.layers)
        graph.append(xstack(mix) if stacked else _overlays(mix))
        maps += ["-map", "[v]"]
    if mix.sound:
        graph.append(amix(mix))
        maps += ["-map", "[a]"]
    inputs = [
        argument
        for layer in mix.layers
        for argument in (*(_EASED if eased and is_small(layer) else ()), "-i", str(layer.file))
    ]
    length = ["-t", f"{mix.seconds:g}"] if mix.sound else ["-frames:v", str(mix.frames)]
    target = ["-f", "null", "-"] if out is None else [*_ff_codecs(mix), str(out)]
    argv = (program, "-hide_banner", "-nostdin", "-y", *inputs, "-filter_complex", ";".join(graph), *maps, *length)
    said = counted(mix.frames, FF_SAYS) if mix.picture else None
    return Command(who=who, argv=(*argv, *target), check=checked(mix, out) if out else said)


def gst(mix: Mix, out: Out, *, who: str = "gst", videoscale: bool = False) -> Command:
    """GStreamer's compositor and audiomixer; with `videoscale` each branch is scaled before, in a thread of its own."""
    program = shutil.which("gst-launch-1.0")
    if program is None:
        return Command(who=who, absent="no gst-launch-1.0 (Debian: gstreamer1.0-tools and its plugins, see the README)")
    argv = [program, *_gst_mixers(mix, out)]
    for n, layer in enumerate(mix.layers):
        argv += gst_branch(mix, n, layer, videoscale=videoscale)
    check = checked(mix, out) if out else _gst_end
    return Command(who=who, argv=tuple(argv), check=check)


def melt(mix: Mix, out: Out) -> Command:
    """MLT's composite and mix transitions over a black track, one reading thread (more of them are slower)."""
    program = shutil.which("melt")
    if program is None:
        return Command(who="melt", absent="no melt (Debian: melt)")
    profile = melt_profile(mix.folder, width=mix.width, height=mix.height, fps=mix.fps)
    last = f"out={mix.frames - 1}"
    argv = [program, "-silent", "-profile", str(profile), "color:black", last]
    for layer in mix.layers:
        argv += ["-track", str(layer.file), last]
    for n, layer in enumerate(mix.layers, 1):
        tracks = ["a_track=0", f"b_track={n}"]
        if mix.sound:
            argv += ["-transition", "mix", *tracks, "always_active=1", "sum=1"]
        place = f"geometry={layer.x}/{layer.y}:{layer.width}x{layer.height}:{layer.opacity:g}"
        argv += ["-transition", "composite", *tracks, place, "distort=1", "progressive=1"]
    codecs = "f=null vcodec=wrapped_avframe acodec=pcm_s16le"
    if out:
        codecs = f"vcodec=libx264 preset={PRESET} vb={mix.bit_rate} g={mix.gop} acodec=aac ab={AUDIO_BIT_RATE}"
    argv += ["-consumer", f"avformat:{out or '/dev/null'}", "real_time=-1", *codecs.split(), f"ar={AUDIO_HZ}"]
    argv += [] if mix.sound else ["an=1"]
    return Command(who="melt", argv=tuple(argv), check=checked(mix, out) if out else _melt_whole)


def melt_profile(folder: Path, *, width: int, height: int, fps: int) -> Path:
    """A file that tells melt size and rate of its picture."""
    profile = folder / f"{width}x{height}-{fps}.profile"
    profile.write_text(
        f"description=benchmark\nframe_rate_num={fps}\nframe_rate_den=1\nwidth={width}\nheight={height}\n"
        f"progressive=1\nsample_aspect_num=1\nsample_aspect_den=1\ndisplay_aspect_num={width}\n"
        f"display_aspect_den={height}\ncolorspace=709\n"
    )
    return profile


def moviepy(mix: Mix, out: Path, *, python: str, seconds: float, scaled: bool = False) -> Command:
    """moviepy for the first `seconds` only, scaled up from that as it is slow.

    scaled  FFmpeg scales for it while reading, instead of itself.
    """
    who = "moviepy-scale" if scaled else "moviepy"
    if not has_moviepy(python):
        return Command(who=who, absent=f"no moviepy in {Path(python).name} (see --moviepy-python)")
    whole, short = mix.seconds, min(seconds, mix.seconds)
    mix = replace(mix, seconds=short)
    work = {
        "layers": [{**vars(layer), "file": str(layer.file)} for layer in mix.layers],
        "size": [mix.width, mix.height],
        "seconds": short,
        "fps": mix.fps,
        "gop": mix.gop,
        "preset": PRESET,
        "bit_rate": mix.bit_rate,
        "audio_bit_rate": AUDIO_BIT_RATE,
        "audio_hz": AUDIO_HZ,
        "scaled": scaled,
        "out": str(out),
    }
    imports = "import json, sys\nfrom typing import Any"
    script = f"{imports}\n{inspect.getsource(_moviepy_render)}\n_moviepy_render(json.loads(sys.argv[1]))"
    return Command(
        who=who,
        argv=(python, "-c", script, json.dumps(work)),
        check=checked(mix, out),
        env={"FFMPEG_BINARY": ffmpeg() or "auto-detect"},
        share=short / whole,
        rounds=2,
    )


def decode_alone(mix: Mix) -> Command:
    """The floor: all sources decoded and thrown away, one thread each, nothing composed."""
    argv = (sys.executable, "-m", "bench.decode_alone", *(str(layer.file) for layer in mix.layers))
    return Command(
        who="decode", argv=argv, check=counted(mix.frames * len({layer.file for layer in mix.layers}), DECODED)
    )


# ---------------------------------------------------------------------------------------------- FFmpeg


def ffmpeg() -> str | None:
    """The FFmpeg to compare with: imageio-ffmpeg's, else the system's."""
    from bench import media

    try:
        return media.ffmpeg()
    except media.NoFFmpegError:
        return None


_EASED = ("-skip_loop_filter", "bidir")


def is_small(layer: Layer) -> bool:
    """Whether a film is shown at half its size or less."""
    import av

    with av.open(str(layer.file)) as container:
        film = container.streams.video[0]
        return 2 * layer.width <= film.width and 2 * layer.height <= film.height


def _scaled(n: int, layer: Layer) -> str:
    return f"[{n}:v]scale={layer.width}:{layer.height}:flags=bilinear"


def xstack(mix: Mix) -> str:
    """The filters that put layers which do not overlap side by side, as [v]."""
    scales = [f"{_scaled(n, layer)}[v{n}]" for n, layer in enumerate(mix.layers)]
    places = "|".join(f"{layer.x}_{layer.y}" for layer in mix.layers)
    labels = "".join(f"[v{n}]" for n in range(len(mix.layers)))
    whole = sum(layer.width * layer.height for layer in mix.layers) == mix.width * mix.height
    fill = "" if whole else ":fill=black"
    return ";".join([*scales, f"{labels}xstack=inputs={len(mix.layers)}:layout={places}{fill}[v]"])


def _overlays(mix: Mix) -> str:
    """Onto the first layer when that is the whole picture, else onto black."""
    first = mix.layers[0]
    whole = (first.width, first.height, first.opacity) == (mix.width, mix.height, 1)
    black = f"color=black:size={mix.width}x{mix.height}:rate={mix.fps},format=yuv420p[b0]"
    steps = [f"{_scaled(0, first)}[b0]" if whole else black]
    above = list(enumerate(mix.layers))[1 if whole else 0 :]
    for step, (n, layer) in enumerate(above):
        alpha = "" if layer.opacity == 1 else f",format=yuva420p,colorchannelmixer=aa={layer.opacity:g}"
        place = f"overlay={layer.x}:{layer.y}:eof_action=endall"
        steps += [f"{_scaled(n, layer)}{alpha}[v{n}]", f"[b{step}][v{n}]{place}[b{step + 1}]"]
    return ";".join(steps) + f";[b{len(above)}]null[v]"


def amix(mix: Mix) -> str:
    """The filters that sum the layers' sound, as [a]."""
    chains = [f"[{n}:a]{_gained(layer)}[a{n}]" for n, layer in enumerate(mix.layers)]
    labels = "".join(f"[a{n}]" for n in range(len(mix.layers)))
    return ";".join([*chains, f"{labels}amix=inputs={len(mix.layers)}:normalize=0[a]"])


def _gained(layer: Layer) -> str:
    if not layer.gain_db and not layer.pan:
        return "anull"
    if not layer.pan:
        return f"volume={layer.gain_db:g}dB"
    left, right = (side * 10 ** (layer.gain_db / 20) for side in balance(layer.pan))
    return f"pan=stereo|c0={left:.6f}*c0|c1={right:.6f}*c1"


def balance(pan: int) -> tuple[float, float]:
    """Linear gains of left and right: constant power, the centre unchanged; ours, told to the others in numbers."""
    angle = (pan + 100) / 200 * math.pi / 2
    return math.sqrt(2) * math.cos(angle), math.sqrt(2) * math.sin(angle)


def _ff_codecs(mix: Mix) -> list[str]:
    if not mix.picture:
        return ["-c:a", "pcm_s16le", "-ar", str(AUDIO_HZ)]
    video = ["-c:v", "libx264", "-preset", PRESET, "-b:v", str(mix.bit_rate), "-g", str(mix.gop), "-r", str(mix.fps)]
    return [*video, "-pix_fmt", "yuv420p", "-c:a", "aac", "-b:a", str(AUDIO_BIT_RATE), "-ar", str(AUDIO_HZ)]


# ---------------------------------------------------------------------------------------------- GStreamer

# Audio waits here for x264's look-ahead (two seconds and more): a bounded queue would lock the pipeline up.
UNBOUNDED = ["queue", "max-size-time=0", "max-size-bytes=0", "max-size-buffers=0"]


def _gst_mixers(mix: Mix, out: Out) -> list[str]:
    """Compositor, audiomixer, encoders and sink."""
    argv: list[str] = []
    sink = ["fakesink", "sync=false"]
    if out and mix.picture:
        argv += ["mp4mux", "name=mux", "!", "filesink", f"location={out}"]
    if mix.picture:
        rate = f"bitrate={mix.bit_rate // 1000} key-int-max={mix.gop} vbv-buf-capacity=0"
        encode = f"x264enc speed-preset={PRESET} {rate} ! h264parse ! queue ! mux.video_0"
        one = ["!", "identity", "eos-after=2"] if mix.frames == 1 else []
        argv += ["compositor", "name=c", "background=black", *gst_pads(mix)]
        argv += ["!", f"video/x-raw,format=I420,width={mix.width},height={mix.height},framerate={mix.fps}/1", *one]
        argv += ["!", "queue", "!", *(encode.split() if out else sink)]
    if mix.sound:
        argv += ["audiomixer", "name=m", "!", f"audio/x-raw,rate={AUDIO_HZ},channels=2"]
        if out and mix.picture:
            encode = f"audioconvert ! avenc_aac bitrate={AUDIO_BIT_RATE} ! aacparse"
            argv += ["!", *UNBOUNDED, "!", *encode.split(), "!", *UNBOUNDED, "!", "mux.audio_0"]
        elif out:
            encode = "! audioconvert ! audio/x-raw,format=S16LE ! wavenc ! filesink"
            argv += [*encode.split(), f"location={out}"]
        else:
            argv += ["!", *sink]
    return argv


def gst_pads(mix: Mix) -> list[str]:
    """Where the compositor puts what comes to each of its pads."""
    return [
        f"sink_{n}::{key}={value:g}"
        for n, layer in enumerate(mix.layers)
        for key, value in (
            *(("xpos", layer.x), ("ypos", layer.y), ("width", layer.width), ("height", layer.height)),
            *(("alpha", layer.opacity), ("zorder", n)),
        )
    ]


def gst_branch(mix: Mix, n: int, layer: Layer, *, videoscale: bool) -> list[str]:
    """One source from its file to the mixers. One decoding thread each: cheaper here than the default."""
    place = ["filesrc", f"location={layer.file}", "!"]
    if not mix.picture:
        left, right = balance(layer.pan)
        louder = max(left, right)  # the panorama of GStreamer only lowers the other side
        gain = f"volume volume={louder * 10 ** (layer.gain_db / 20):.4f}"
        chain = f"wavparse ! {gain} ! audiopanorama method=simple panorama={(right - left) / louder:.4f} ! m.sink_{n}"
        return [*place, *chain.split()]
    chain = f"qtdemux name=d{n} d{n}.video_0 ! queue ! h264parse ! avdec_h264 max-threads=1 ! queue"
    if videoscale:
        chain += f" ! videoscale method=bilinear ! video/x-raw,width={layer.width},height={layer.height} ! queue"
    argv = [*place, *f"{chain} ! c.sink_{n}".split()]
    if mix.sound:
        gain = f"volume volume={10 ** (layer.gain_db / 20):.4f} ! " if layer.gain_db else ""
        chain = f"aacparse ! avdec_aac ! audioconvert ! audioresample ! {gain}m.sink_{n}"
        argv += [f"d{n}.audio_0", "!", *UNBOUNDED, "!", *chain.split()]
    return argv


def _gst_end(printed: str) -> None:
    if "Got EOS" not in printed:
        raise RunError("GStreamer did not reach the end")


def _melt_whole(printed: str) -> None:
    """It ends with status 0 when films are missing or an encoder is unknown, and goes on without."""
    for line in printed.splitlines():
        if "Failed to load" in line or "unrecognised" in line:
            raise RunError(line.strip())


# ---------------------------------------------------------------------------------------------- moviepy


@functools.cache
def has_moviepy(python: str) -> bool:
    """Whether an interpreter has moviepy."""
    try:
        found = subprocess.run([python, "-c", "import moviepy"], capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return found.returncode == 0


def _moviepy_render(work: dict[str, Any]) -> None:
    """The work in moviepy; sent as source text to an interpreter that has it, so it uses nothing else from here."""
    from moviepy import CompositeVideoClip, VideoFileClip  # type: ignore[import-not-found,unused-ignore]

    clips = []
    for layer in work["layers"]:
        size = (layer["width"], layer["height"])
        if work["scaled"]:
            clip = VideoFileClip(layer["file"], target_resolution=size, resize_algorithm="bilinear")
        else:
            clip = VideoFileClip(layer["file"]).resized(size)
        clip = clip.subclipped(0, work["seconds"]).with_position((layer["x"], layer["y"]))
        clips.append(clip if layer["opacity"] == 1 else clip.with_opacity(layer["opacity"]))
    CompositeVideoClip(clips, size=tuple(work["size"])).with_duration(work["seconds"]).write_videofile(
        work["out"],
        fps=work["fps"],
        codec="libx264",
        preset=work["preset"],
        bitrate=str(work["bit_rate"]),
        audio_codec="aac",
        audio_fps=work["audio_hz"],
        audio_bitrate=str(work["audio_bit_rate"]),
        ffmpeg_params=["-g", str(work["gop"])],
        logger=None,
    )


# ---------------------------------------------------------------------------------------------- checks


OURS_SAYS = r'"done":(\d+)'
FF_SAYS = r"frame=\s*(\d+)"
DECODED = r"^frames: (\d+)"


def counted(frames: int, said: str) -> Callable[[str], None]:
    """A check for null sinks, where there is nothing to look at: the last count that was printed is that of all frames.

    said  the pattern of a count.
    """

    def check(printed: str) -> None:
        counts = re.findall(said, printed, re.MULTILINE)
        if not counts or int(counts[-1]) < frames - 1:
            raise RunError(f"{counts[-1] if counts else 'no'} of {frames} frames")

    return check


def checked(mix: Mix, out: Path) -> Callable[[str], None]:
    """A check that the file holds the whole mix, every layer in its place."""

    def check(printed: str) -> None:
        try:
            _check_file(mix, out)
        except (OSError, ValueError) as error:  # what libav says of a broken file is one of these
            raise RunError(f"unreadable output: {error}") from error
        finally:
            out.unlink(missing_ok=True)

    return check


def _check_file(mix: Mix, out: Path) -> None:
    import av

    if not out.exists():
        raise RunError("no output")
    with av.open(str(out)) as container:
        if mix.picture:
            check_size(container, mix.width, mix.height)
        frames, sound = 0, 0.0
        for packet in container.demux():
            if packet.size and packet.stream.type == "video":
                frames += 1
            elif packet.size and packet.duration is not None and packet.time_base is not None:
                sound += float(packet.duration * packet.time_base)
    if mix.picture and abs(frames - mix.frames) > mix.frames // 100:
        raise RunError(f"{frames} of {mix.frames} frames")
    if mix.sound and sound < mix.seconds - 0.1:
        raise RunError(f"{sound:.1f} of {mix.seconds:g} s of sound")
    if mix.picture:
        _check_picture(mix, out)
        if mix.sound:
            check_loudness(samples(out, 1), _sum(mix))
    else:
        _check_sound(mix, out)


def check_size(container: Any, width: int, height: int) -> None:
    """Raises RunError when the film that was opened has another size, or no picture."""
    sizes = [(stream.width, stream.height) for stream in container.streams.video]
    if sizes != [(width, height)]:
        raise RunError(f"a film of {' and '.join(f'{w}×{h}' for w, h in sizes) or 'no'} pixels, not {width}×{height}")


def check_loudness(found: Any, wanted: Any) -> None:
    """Compare root mean squares of two (2, N) arrays; raises RunError when one is more than 3 dB above the other.

    Codecs keep that; where they begin, and how a sum that is too loud is clipped, is everybody's own.
    """
    import numpy as np

    length = min(found.shape[1], wanted.shape[1])
    loudness = [float(np.sqrt((sound[:, :length] ** 2).mean())) for sound in (found, wanted)]
    if not 0.7 < loudness[0] / max(loudness[1], 1e-6) < 1.4:
        raise RunError(f"not the sum of its sources: a loudness of {loudness[0]:.3f}, not {loudness[1]:.3f}")


def _check_picture(mix: Mix, out: Path) -> None:
    """Compare one frame, made small, with what the layers should have made of it."""
    n = min(mix.frames // 2, mix.fps)
    scale = max(1, mix.height // 270)
    found = planes(out, n, width=mix.width // scale, height=mix.height // scale)
    wanted = expected(mix, n, scale)
    for number, layer in enumerate(mix.layers):
        window = part(layer.x, layer.y, layer.width, layer.height, scale=scale)
        if sentence := difference(found, wanted, window):
            raise RunError(f"layer {number} is not in its place: {sentence}")


def difference(found: list[Any], wanted: list[Any], window: tuple[slice, slice]) -> str:
    """How far two pictures are from one another in a part of them, as words; "" when they are near enough.

    Brightness pixel by pixel, colour on average: at the smallest sizes everybody places chroma a little differently.
    """
    import numpy as np

    differences = [a[window] - b[window] for a, b in zip(found, wanted, strict=True)]
    off = [float(np.abs(differences[0]).mean()), *(abs(float(chroma.mean())) for chroma in differences[1:])]
    return f"off by Y {off[0]:.0f}, U {off[1]:.0f}, V {off[2]:.0f}" if off[0] > 16 or max(off[1:]) > 6 else ""


def part(x: int, y: int, width: int, height: int, *, scale: int) -> tuple[slice, slice]:
    """A rectangle in pixels within a picture that was made so many times smaller: rows and columns."""
    return slice(y // scale, (y + height) // scale), slice(x // scale, (x + width) // scale)


def _check_sound(mix: Mix, out: Path) -> None:
    """Compare the first second with the sum of the sources."""
    import numpy as np

    wanted, found = _sum(mix), samples(out, 1)
    length = min(found.shape[1], AUDIO_HZ)
    error = found[:, :length] - wanted[:, :length]
    ratio = float(np.sqrt((error**2).mean() / (wanted[:, :length] ** 2).mean()))
    if length < min(mix.seconds, 1) * AUDIO_HZ or ratio > 0.02:  # the ramp ours starts with, and rounding
        raise RunError(f"not the sum of its sources: off by {ratio:.0%}")


def _sum(mix: Mix) -> Any:
    """The first second of what should be heard."""
    import numpy as np

    return sum(
        samples(layer.file, 1) * np.array([balance(layer.pan)]).T * 10 ** (layer.gain_db / 20) for layer in mix.layers
    )


def samples(file: Path, seconds: float) -> Any:
    """The beginning of a recording's or film's sound: (2, N) float array, full scale ±1."""
    import av
    import numpy as np

    length = round(seconds * AUDIO_HZ)
    blocks: list[Any] = [np.zeros((2, 0), np.float32)]
    with av.open(str(file)) as container:
        resampler = av.AudioResampler(format="fltp", layout="stereo", rate=AUDIO_HZ)
        for frame in container.decode(audio=0):
            blocks += [part.to_ndarray() for part in resampler.resample(frame)]
            if sum(block.shape[1] for block in blocks) >= length:
                break
    return np.concatenate(blocks, axis=1)[:, :length]


def planes(file: Path, n: int, *, width: int, height: int) -> list[Any]:
    """Frame n of a film scaled to a size: Y, U, V as (height, width) float arrays."""
    import av
    from av.video.reformatter import Interpolation

    with av.open(str(file)) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number == n:
                small = frame.reformat(width=width, height=height, format="yuv444p", interpolation=Interpolation.AREA)
                return list(small.to_ndarray().astype(float).reshape(3, height, width))
    raise RunError(f"{file.name} has no frame {n}")


@functools.lru_cache(maxsize=8)
def expected(mix: Mix, n: int, scale: int) -> list[Any]:
    """Frame n of the mix at 1/scale of its size, painted slowly: Y, U, V as (height, width) float arrays."""
    import numpy as np

    size = (mix.height // scale, mix.width // scale)
    canvas = [np.full(size, value, float) for value in (16, 128, 128)]
    for layer in mix.layers:
        x, y, width, height = (value // scale for value in (layer.x, layer.y, layer.width, layer.height))
        source = planes(layer.file, n, width=width, height=height)
        for below, above in zip(canvas, source, strict=True):
            part = below[y : y + height, x : x + width]
            part += layer.opacity * (above[: part.shape[0], : part.shape[1]] - part)
    return canvas


# ---------------------------------------------------------------------------------------------- versions


# Its own `__version__` is an older one's.
_MOVIEPY_VERSION = "import importlib.metadata; print(importlib.metadata.version('moviepy'))"


def versions(*, moviepy_python: str = sys.executable) -> dict[str, str]:
    """Who took part: name → version, "absent" where there is none."""
    programs = {
        "ffmpeg": ([ffmpeg() or "ffmpeg", "-version"], r"ffmpeg version (\S+)"),
        "gstreamer": (["gst-launch-1.0", "--version"], r"GStreamer (\S+)"),
        "melt": (["melt", "--version"], r"melt (\S+)"),
        "moviepy": ([moviepy_python, "-c", _MOVIEPY_VERSION], r"^(\d\S+)"),
    }
    found = {name: _printed_version(argv, pattern) for name, (argv, pattern) in programs.items()}
    for package in ("mashtun", "av", "numpy"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return {**found, "python": sys.version.split()[0]}


def _printed_version(argv: list[str], pattern: str) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return "absent"
    match = re.search(pattern, done.stdout + done.stderr, re.MULTILINE)
    return match.group(1) if match else "absent"


def _name(mix: Mix, out: Out) -> str:
    sink = out.stem if out else "null"
    return f"{sink}-{len(mix.layers)}-{mix.width}x{mix.height}"

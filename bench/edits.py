"""Timelines, said in the language of each engine: ours, FFmpeg, melt, moviepy; and whether they really made them.

An `Edit` is the neutral description of one: films cut behind one another, blended with a picture in the picture and a
text, photos that are panned over. Each function turns it into a `Command` with the same encoder settings. The settings
of a peer are the fastest found for it. Every output is checked after the run, outside the timing, as in `peers`.
"""

import functools
import importlib.metadata
import inspect
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench import peers
from bench.measure import OURS, Command, RunError
from bench.peers import AUDIO_BIT_RATE, AUDIO_HZ, PRESET, Out

FPS = 30
FADE = FPS  # frames
ZOOM = 1.25  # of a photo that is panned over
LEGIBLE = 10  # pixels of a font


@dataclass(frozen=True, kw_only=True)
class Shot:
    """`length` frames of a film, from its frame `trim` on."""

    file: Path
    trim: int
    length: int


@dataclass(frozen=True, kw_only=True)
class Edit:
    """What all timelines have: their size, their encoding, and a scratch folder."""

    name: str
    width: int
    height: int
    bit_rate: int
    folder: Path
    sound = True

    @property
    def frames(self) -> int:
        """All of them."""
        raise NotImplementedError

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.frames / FPS

    def document(self) -> dict[str, Any]:
        """The mash, as Movie Masher's client would send it."""
        raise NotImplementedError

    def ff_inputs(self) -> list[str]:
        """FFmpeg's inputs."""
        raise NotImplementedError

    def ff_graph(self) -> str:
        """FFmpeg's filters, to [v] and [a]."""
        raise NotImplementedError

    def melt_tracks(self) -> list[str]:
        """What melt is told."""
        raise NotImplementedError

    def layers(self) -> list[dict[str, Any]]:
        """What moviepy is told: the parts of the picture, in seconds and pixels."""
        raise NotImplementedError

    def expected(self, n: int, width: int, height: int) -> list[Any]:
        """Frame n, scaled, painted slowly: Y, U, V as (height, width) float arrays."""
        raise NotImplementedError

    def heard(self) -> list[tuple[Shot, int, int]]:
        """Whose sound it has: each film, its first frame here, and how many frames it fades for at either end."""
        return []

    def windows(self, n: int) -> list[tuple[int, int, int, int]]:
        """What of frame n is compared with what is expected, each by itself: rectangles in pixels."""
        return [(0, 0, self.width, self.height)]

    def ticks(self, start: int, stop: int) -> list[int]:
        """The frames of [start, stop) that are looked at."""
        return [start + (stop - start) * k // 8 for k in (1, 3, 7)]

    def title(self) -> tuple[int, int, int, int] | None:
        """Where there are white letters all the time: a rectangle in pixels."""
        return None


@dataclass(frozen=True, kw_only=True)
class Cuts(Edit):
    """Films behind one another, as they are."""

    shots: Sequence[Shot]

    @property
    def frames(self) -> int:
        return sum(shot.length for shot in self.shots)

    def document(self) -> dict[str, Any]:
        clips = [_clip(self._id(shot), shot.length, startTrim=shot.trim) for shot in self.shots]
        size = {"width": self.width, "height": self.height}
        films = {shot.file: self._id(shot) for shot in self.shots}
        return _mash([clips], [_film(name, file, size) for file, name in films.items()])

    def _id(self, shot: Shot) -> str:
        return shot.file.stem

    def ff_inputs(self) -> list[str]:
        return [argument for shot in self.shots for argument in _ff_shot(shot)]

    def ff_graph(self) -> str:
        return f"{_ff_concat(len(self.shots))}[v][a]"

    def melt_tracks(self) -> list[str]:
        return [argument for shot in self.shots for argument in _melt_shot(shot)]

    def layers(self) -> list[dict[str, Any]]:
        begins = [sum(shot.length for shot in self.shots[:n]) for n in range(len(self.shots))]
        return [_layer(shot, begin, self) for shot, begin in zip(self.shots, begins, strict=True)]

    def expected(self, n: int, width: int, height: int) -> list[Any]:
        for shot in self.shots:
            if n < shot.length:
                return peers.planes(shot.file, shot.trim + n, width=width, height=height)
            n -= shot.length
        raise ValueError(f"frame {n} beyond the end")

    def heard(self) -> list[tuple[Shot, int, int]]:
        begins = [sum(shot.length for shot in self.shots[:n]) for n in range(len(self.shots))]
        return [(shot, begin, 0) for shot, begin in zip(self.shots, begins, strict=True)]


@dataclass(frozen=True, kw_only=True)
class Blend(Edit):
    """Three films of 1/3 each, crossfaded for a second, a fourth one small at the bottom right, a text over all."""

    shots: Sequence[Shot]
    inset: Shot
    inset_at: int
    text: str = "Mashtun timeline"

    @property
    def frames(self) -> int:
        return sum(shot.length for shot in self.shots) - FADE * (len(self.shots) - 1)

    @property
    def begins(self) -> list[int]:
        """When each film begins to be seen."""
        return [sum(shot.length - FADE for shot in self.shots[:n]) for n in range(len(self.shots))]

    @property
    def place(self) -> tuple[int, int, int, int]:
        """The small one's rectangle: even pixels at a quarter of the size."""
        width, height = self.width // 4 & ~1, self.height // 4 & ~1
        return (
            (self.width - width - self.width // 32) & ~1,
            (self.height - height - self.height // 32) & ~1,
            width,
            height,
        )

    @property
    def font_size(self) -> int:
        return self.height // 15

    def document(self) -> dict[str, Any]:
        """The middle film lies above the other two: it fades in over the first and out over the last."""
        first, middle, last = self.shots
        fade = FADE / first.length, FADE / last.length
        low = [
            _clip("first", first.length, startTrim=first.trim, gain=f"0,1,{1 - fade[0]},1,1,0"),
            _clip("last", last.length, frame=self.begins[2], startTrim=last.trim, gain=f"0,0,{fade[1]},1,1,1"),
        ]
        parts = [(0, FADE, 0, 1), (FADE, middle.length - 2 * FADE, 1, 1), (middle.length - FADE, FADE, 1, 0)]
        high = [
            _clip(
                *("middle", length),
                frame=self.begins[1] + offset,
                container={"opacity": start, "opacityEnd": end},
                startTrim=middle.trim + offset,
                gain=f"0,{start},1,{end}",
            )
            for offset, length, start, end in parts
        ]
        x, y, width, height = self.place
        box = {"x": x / (self.width - width), "y": y / (self.height - height), "lock": ""}
        box |= {"width": width / self.width, "height": height / self.height}
        small = _clip("inset", self.inset.length, frame=self.inset_at, container=box, startTrim=self.inset.trim)
        letters = {"string": self.text, "width": 0.4, "y": 0.85}
        title = {"frames": self.frames, "containerId": "com.moviemasher.container.text", "container": letters}
        size = {"width": self.width, "height": self.height}
        names = zip(("first", "middle", "last", "inset"), (*self.shots, self.inset), strict=True)
        tracks = [low, high, [small], [title]]
        return _mash(tracks, [_film(name, shot.file, size) for name, shot in names])

    def ff_inputs(self) -> list[str]:
        return [argument for shot in (*self.shots, self.inset) for argument in _ff_shot(shot)]

    def ff_graph(self) -> str:
        fades = [
            f"[{'0:v' if n == 1 else f'x{n - 1}'}][{n}:v]xfade=transition=fade:duration={FADE / FPS:g}"
            f":offset={self.begins[n] / FPS:g}[x{n}]"
            for n in (1, 2)
        ]
        return ";".join([*fades, *self._ff_above("x2"), *self._ff_sound()])

    def ff_overlays(self) -> str:
        """The same with overlaid pictures that fade by their alpha."""
        later = [
            f"[{n}:v]format=yuva420p,fade=in:st=0:d={FADE / FPS:g}:alpha=1,setpts=PTS+{self.begins[n] / FPS:g}/TB[l{n}]"
            for n in (1, 2)
        ]
        pad = (self.frames - self.shots[0].length) / FPS
        over = [f"[0:v]tpad=stop_mode=add:stop_duration={pad:g}[x0]"]
        over += [f"[x{n - 1}][l{n}]overlay=eof_action=pass[x{n}]" for n in (1, 2)]
        return ";".join([*later, *over, *self._ff_above("x2"), *self._ff_sound()])

    def ff_codecs(self) -> str:
        """What must be decoded and encoded, and nothing else: the films one after the other, as long as the whole."""
        ends = f"[x]trim=end_frame={self.frames}[v];[y]atrim=duration={self.seconds:g}[a]"
        return f"{_ff_concat(len(self.shots))}[x][y];{ends}"

    def _ff_above(self, below: str) -> list[str]:
        x, y, width, height = self.place
        at, until = self.inset_at / FPS, (self.inset_at + self.inset.length) / FPS
        draw = f"fontfile='{font()}':text='{self.text}':fontsize={self.font_size}:fontcolor=white"
        return [
            f"[3:v]scale={width}:{height}:flags=bilinear,setpts=PTS+{at:g}/TB[p]",
            f"[{below}][p]overlay={x}:{y}:enable='between(t,{at:g},{until:g})':eof_action=pass[z]",
            f"[z]drawtext={draw}:x=(w-tw)/2:y=h*0.85[v]",
        ]

    def _ff_sound(self) -> list[str]:
        fades = [f"[{'0:a' if n == 1 else f'a{n - 1}'}][{n}:a]acrossfade=d={FADE / FPS:g}[a{n}]" for n in (1, 2)]
        delay = f"[3:a]adelay={1000 * self.inset_at // FPS}:all=1[ap]"
        return [*fades, delay, "[a2][ap]amix=inputs=2:normalize=0:duration=first[a]"]

    def melt_tracks(self) -> list[str]:
        first, *others = self.shots
        mixed = ["-mix", str(FADE), "-mixer", "luma", "-mixer", "mix:-1"]
        argv = [*_melt_shot(first), *(argument for shot in others for argument in (*_melt_shot(shot), *mixed))]
        x, y, width, height = self.place
        argv += ["-track", "-blank", str(self.inset_at - 1), *_melt_shot(self.inset)]
        letters = [f"text={self.text}", "family=DejaVu Sans", f"size={self.font_size}", "fgcolour=#ffffffff"]
        argv += ["-track", "pango:", *letters, f"out={self.frames - 1}"]
        argv += ["-transition", "mix", "a_track=0", "b_track=1", "always_active=1", "sum=1"]
        shown = (f"in={self.inset_at}", f"out={self.inset_at + self.inset.length - 1}")
        argv += ["-transition", "composite", "a_track=0", "b_track=1", *shown]
        argv += [f"geometry={x}/{y}:{width}x{height}:100", "distort=1", "progressive=1"]
        line = f"geometry=0/{self.height * 17 // 20}:{self.width}x{self.height // 9}:100"
        return [*argv, "-transition", "composite", "a_track=0", "b_track=2", line, "halign=centre", "progressive=1"]

    def layers(self) -> list[dict[str, Any]]:
        films = [_layer(shot, begin, self) for shot, begin in zip(self.shots, self.begins, strict=True)]
        for film in films[1:]:
            film["fade"] = FADE / FPS
        x, y, width, height = self.place
        small = {**_layer(self.inset, self.inset_at, self), "x": x, "y": y, "width": width, "height": height}
        text = {"text": self.text, "font": str(font()), "size": self.font_size, "y": self.height * 0.85}
        return [*films, small, {**text, "begin": 0, "length": self.seconds}]

    def expected(self, n: int, width: int, height: int) -> list[Any]:
        """Without the text, which a tolerance has to allow for."""
        painted: list[Any] = []
        for shot, begin in zip(self.shots, self.begins, strict=True):
            k = n - begin
            if 0 <= k < shot.length:
                film = peers.planes(shot.file, shot.trim + k, width=width, height=height)
                shown = (k + 0.5) / FADE
                painted = [a + shown * (b - a) for a, b in zip(painted, film, strict=True)] if painted else film
        k = n - self.inset_at
        if 0 <= k < self.inset.length:
            scale = self.width / width
            x, y, wide, high = (round(value / scale) for value in self.place)
            small = peers.planes(self.inset.file, self.inset.trim + k, width=wide, height=high)
            for below, above in zip(painted, small, strict=True):
                part = below[y : y + high, x : x + wide]
                part[:] = above[: part.shape[0], : part.shape[1]]
        return painted

    def heard(self) -> list[tuple[Shot, int, int]]:
        films = [(shot, begin, FADE) for shot, begin in zip(self.shots, self.begins, strict=True)]
        return [*films, (self.inset, self.inset_at, 0)]

    def windows(self, n: int) -> list[tuple[int, int, int, int]]:
        inset = [self.place] if 0 <= n - self.inset_at < self.inset.length else []
        return [*super().windows(n), *inset]

    def ticks(self, start: int, stop: int) -> list[int]:
        """And the middle of each fade, and of the inset."""
        more = [*(begin + FADE // 2 for begin in self.begins[1:]), self.inset_at + self.inset.length // 2]
        return [*super().ticks(start, stop), *(n for n in more if start <= n < stop)]

    def title(self) -> tuple[int, int, int, int] | None:
        """As wide and high as anybody's letters; nothing where they are too small to be white."""
        if self.font_size < LEGIBLE:
            return None
        return self.width * 3 // 10, self.height * 8 // 10, self.width * 4 // 10, self.height * 17 // 100


@dataclass(frozen=True, kw_only=True)
class Slides(Edit):
    """Photos of 4:3, each for `length` frames, enlarged and panned over from left to right."""

    photos: Sequence[Path]
    size: tuple[int, int]
    length: int
    sound = False

    @property
    def frames(self) -> int:
        return self.length * len(self.photos)

    @property
    def window(self) -> tuple[int, int]:
        """How large a photo is scaled."""
        width = round(self.width * ZOOM)
        return width, width * self.size[1] // self.size[0]

    def document(self) -> dict[str, Any]:
        scale = {"width": ZOOM, "height": ZOOM, "x": 0, "xEnd": 1, "y": 0.5}
        clips = [{**_clip(photo.stem, self.length, **scale), "sizing": "preview"} for photo in self.photos]
        size = {"width": self.size[0], "height": self.size[1]}
        images = [
            {"id": photo.stem, "type": "image", "source": str(photo), "sourceSize": size} for photo in self.photos
        ]
        return _mash([clips], images)

    def ff_inputs(self) -> list[str]:
        return [argument for photo in self.photos for argument in ("-i", str(photo))]

    def ff_graph(self) -> str:
        """Each photo is read and scaled once, then looped; zoompan would scale every picture anew."""
        width, height = self.window
        colours = "in_color_matrix=bt601:out_color_matrix=bt709:out_range=tv"
        loop = f"scale={width}:{height}:flags=bilinear:{colours},format=yuv420p,loop=loop={self.length - 1}:size=1"
        pan = (
            f"settb=1/{FPS},setpts=N,crop={self.width}:{self.height}:x='(iw-ow)*n/{self.length}':y='(ih-oh)/2',setsar=1"
        )
        chains = [f"[{n}:v]{loop},{pan}[s{n}]" for n in range(len(self.photos))]
        labels = "".join(f"[s{n}]" for n in range(len(self.photos)))
        return ";".join([*chains, f"{labels}concat=n={len(self.photos)}:v=1:a=0,fps={FPS}[v]"])

    def melt_tracks(self) -> list[str]:
        (width, height), last = self.window, self.length - 1
        y, x = (self.height - height) // 2, self.width - width
        pan = f"transition.rect=0=0/{y}:{width}x{height};{last}={x}/{y}:{width}x{height}"
        move = ["-attach-cut", "affine", pan]
        return [argument for photo in self.photos for argument in (str(photo), f"out={last}", *move)]

    def layers(self) -> list[dict[str, Any]]:
        (width, height), seconds = self.window, self.length / FPS
        pan = {"width": width, "height": height, "x": 0, "x_end": self.width - width, "y": (self.height - height) // 2}
        return [
            {"file": str(photo), "photo": True, "begin": n * seconds, "length": seconds, "trim": 0, **pan}
            for n, photo in enumerate(self.photos)
        ]

    def expected(self, n: int, width: int, height: int) -> list[Any]:
        import av

        with av.open(str(self.photos[n // self.length])) as image:
            photo = next(image.decode(video=0))
        scale = self.width / width
        wide, high = (round(side / scale) for side in self.window)
        planes = photo.reformat(width=wide, height=high, format="yuv444p", dst_colorspace="ITU709", dst_color_range=1)
        found = planes.to_ndarray().astype(float).reshape(3, high, wide)
        x, y = round((wide - width) * (n % self.length) / self.length), (high - height) // 2
        return [plane[y : y + height, x : x + width] for plane in found]


# ---------------------------------------------------------------------------------------------- the engines


def ours(edit: Edit, out: Out, *, who: str = OURS, smart: str = "auto") -> Command:
    """Mashtun, by its command line."""
    document = edit.folder / f"{out.stem if out else f'{edit.name}-null'}.json"
    document.write_text(json.dumps(edit.document()))
    target = str(out) if out else "null:"
    argv = (sys.executable, "-m", "api.__main__", "render", str(document), target, "--smart", smart)
    size = ("--size", f"{edit.width}x{edit.height}", "--fps", str(FPS), "--preset", PRESET)
    rate = ("--bit-rate", str(edit.bit_rate), "--gop", str(2 * FPS), *peers.ours_told(out))
    check = checked(edit, out) if out else peers.counted(edit.frames, peers.OURS_SAYS)
    return Command(who=who, argv=(*argv, *size, *rate), check=check)


def ff9(edit: Edit, out: Out, *, who: str = "ff9", graph: str | None = None) -> Command:
    """FFmpeg's filters."""
    program = peers.ffmpeg()
    if program is None:
        return Command(who=who, absent="no imageio-ffmpeg and no ffmpeg")
    maps = ["-map", "[v]", *(["-map", "[a]"] if edit.sound else [])]
    argv = [program, *_QUIET, *edit.ff_inputs(), "-filter_complex", graph or edit.ff_graph(), *maps]
    if out is None:
        null = ("-r", str(FPS), "-pix_fmt", "yuv420p", "-f", "null", "-")
        return Command(who=who, argv=(*argv, *null), check=peers.counted(edit.frames, peers.FF_SAYS))
    video = ["-c:v", "libx264", "-preset", PRESET, "-b:v", str(edit.bit_rate), "-g", str(2 * FPS), "-r", str(FPS)]
    return Command(who=who, argv=(*argv, *video, "-pix_fmt", "yuv420p", *_AAC, str(out)), check=checked(edit, out))


def codecs(edit: Blend, out: Path) -> Command:
    """The floor: FFmpeg decodes all films and encodes what is like the result; the inset is thrown away."""
    command = ff9(edit, out, who="codecs", graph=edit.ff_codecs())
    if command.absent:
        return command
    thrown_away = ("-map", f"{len(edit.shots)}:v", "-f", "null", "-")
    return replace(command, argv=(*command.argv, *thrown_away), check=None)


def ff9_copy(edit: Cuts, out: Path, *, who: str = "ff9-copy", sound: bool = False) -> Command:
    """FFmpeg's packet copy: of picture and sound, or with `sound` encoded. Right for cuts on keyframes only."""
    program = peers.ffmpeg()
    if program is None:
        return Command(who=who, absent="no imageio-ffmpeg and no ffmpeg")
    lines = ["ffconcat version 1.0"]
    for shot in edit.shots:
        lines += [f"file '{shot.file}'", f"inpoint {shot.trim / FPS}", f"outpoint {(shot.trim + shot.length) / FPS}"]
    playlist = edit.folder / f"{out.stem}.ffconcat"
    playlist.write_text("\n".join(lines) + "\n")
    codecs = ("-c:v", "copy", *_AAC) if sound else ("-c", "copy")
    argv = (program, *_QUIET, "-safe", "0", "-f", "concat", "-i", str(playlist), *codecs, str(out))
    return Command(who=who, argv=argv, check=checked(edit, out, loose=True))


def melt(edit: Edit, out: Path) -> Command:
    """MLT."""
    program = shutil.which("melt")
    if program is None:
        return Command(who="melt", absent="no melt (Debian: melt)")
    profile = peers.melt_profile(edit.folder, width=edit.width, height=edit.height, fps=FPS)
    codecs = f"vcodec=libx264 preset={PRESET} vb={edit.bit_rate} g={2 * FPS} acodec=aac ab={AUDIO_BIT_RATE}"
    argv = [program, "-silent", "-profile", str(profile), *edit.melt_tracks()]
    argv += ["-consumer", f"avformat:{out}", "real_time=-1", *codecs.split(), f"ar={AUDIO_HZ}"]
    return Command(who="melt", argv=(*argv, *([] if edit.sound else ["an=1"])), check=checked(edit, out))


def moviepy(edit: Edit, out: Path, *, python: str, start: float, seconds: float) -> Command:
    """moviepy, for [start, start + seconds) only, scaled up from that as it is slow."""
    if not peers.has_moviepy(python):
        return Command(who="moviepy", absent=f"no moviepy in {Path(python).name} (see --moviepy-python)")
    work = {
        "layers": edit.layers(),
        "size": [edit.width, edit.height],
        "span": [start, start + seconds],
        "fps": FPS,
        "gop": 2 * FPS,
        "preset": PRESET,
        "bit_rate": edit.bit_rate,
        "audio_bit_rate": AUDIO_BIT_RATE,
        "audio_hz": AUDIO_HZ,
        "sound": edit.sound,
        "out": str(out),
    }
    imports = "import json, sys\nfrom typing import Any"
    script = f"{imports}\n{inspect.getsource(_moviepy_render)}\n_moviepy_render(json.loads(sys.argv[1]))"
    return Command(
        who="moviepy",
        argv=(python, "-c", script, json.dumps(work)),
        check=checked(edit, out, span=(round(start * FPS), round((start + seconds) * FPS))),
        env={"FFMPEG_BINARY": peers.ffmpeg() or "auto-detect"},
        share=seconds / edit.seconds,
        rounds=2,
    )


_QUIET = ("-hide_banner", "-nostdin", "-y")
_AAC = ("-c:a", "aac", "-b:a", str(AUDIO_BIT_RATE), "-ar", str(AUDIO_HZ))


def font() -> Path:
    """The font of Mashtun's own texts, for those who want to be told a file."""
    found = importlib.metadata.files("fontpkg-league-spartan") or ()
    return next(Path(str(file.locate())) for file in found if file.suffix == ".ttf")


def _mash(tracks: Sequence[list[dict[str, Any]]], definitions: list[dict[str, Any]]) -> dict[str, Any]:
    dense = [{"dense": n == 0 and "frame" not in track[-1], "clips": track} for n, track in enumerate(tracks)]
    return {"mash": {"quantize": FPS, "tracks": dense}, "definitions": definitions}


def _clip(content: str, frames: int, *, frame: int | None = None, container: Any = None, **more: Any) -> dict[str, Any]:
    placed = {} if frame is None else {"frame": frame}
    return {"contentId": content, "frames": frames, "content": more, "container": container or {}, **placed}


def _film(name: str, file: Path, size: dict[str, int]) -> dict[str, Any]:
    """A film's definition as an upload gives it."""
    seconds = {"duration": 3600, "audio": True}  # longer than any: nothing begins again
    return {"id": name, "type": "video", "source": str(file), "sourceSize": size, **seconds}


def _ff_shot(shot: Shot) -> list[str]:
    return ["-ss", f"{shot.trim / FPS:g}", "-t", f"{shot.length / FPS:g}", "-i", str(shot.file)]


def _ff_concat(count: int) -> str:
    """The first so many inputs, picture and sound, one after the other."""
    pairs = "".join(f"[{n}:v][{n}:a]" for n in range(count))
    return f"{pairs}concat=n={count}:v=1:a=1"


def _melt_shot(shot: Shot) -> list[str]:
    return [str(shot.file), f"in={shot.trim}", f"out={shot.trim + shot.length - 1}"]


def _layer(shot: Shot, begin: int, edit: Edit) -> dict[str, Any]:
    place = {"x": 0, "y": 0, "width": edit.width, "height": edit.height}
    times = {"begin": begin / FPS, "trim": shot.trim / FPS, "length": shot.length / FPS}
    return {"file": str(shot.file), **times, **place}


def _moviepy_render(work: dict[str, Any]) -> None:
    """The work in moviepy; sent as source text to an interpreter that has it, so it uses nothing else from here."""
    from moviepy import (  # type: ignore[import-not-found,unused-ignore]
        CompositeVideoClip,
        ImageClip,
        TextClip,
        VideoFileClip,
        concatenate_videoclips,
        vfx,
    )

    clips = []
    for layer in work["layers"]:
        if layer["begin"] >= work["span"][1] or layer["begin"] + layer["length"] <= work["span"][0]:
            continue
        if "text" in layer:
            clip = TextClip(font=layer["font"], text=layer["text"], font_size=layer["size"], color="white")
            clips.append(clip.with_duration(layer["length"]).with_position(("center", layer["y"])))
            continue
        size = (layer["width"], layer["height"])
        if "photo" in layer:
            clip = ImageClip(layer["file"]).resized(size).with_duration(layer["length"])
            pan = (layer["x_end"] - layer["x"]) / layer["length"]
            clip = clip.with_position(lambda t, x=layer["x"], pan=pan, y=layer["y"]: (x + pan * t, y))
        else:
            clip = VideoFileClip(layer["file"], target_resolution=size, resize_algorithm="bilinear")
            clip = clip.subclipped(layer["trim"], layer["trim"] + layer["length"])
            clip = clip.with_position((layer["x"], layer["y"]))
        if "fade" in layer:
            clip = clip.with_effects([vfx.CrossFadeIn(layer["fade"])])
        clips.append(clip.with_start(layer["begin"]))
    plain = all("fade" not in each and "text" not in each and "photo" not in each for each in work["layers"])
    if plain:
        whole = concatenate_videoclips(clips, method="chain")
    else:
        whole = CompositeVideoClip(clips, size=tuple(work["size"]))
    whole.subclipped(work["span"][0], min(work["span"][1], whole.duration)).write_videofile(
        work["out"],
        fps=work["fps"],
        codec="libx264",
        preset=work["preset"],
        bitrate=str(work["bit_rate"]),
        audio=work["sound"],
        audio_codec="aac",
        audio_fps=work["audio_hz"],
        audio_bitrate=str(work["audio_bit_rate"]),
        ffmpeg_params=["-g", str(work["gop"])],
        logger=None,
    )


# ---------------------------------------------------------------------------------------------- checks


def checked(
    edit: Edit, out: Path, *, span: tuple[int, int] | None = None, loose: bool = False
) -> Callable[[str], None]:
    """A check that the file holds frames [start, stop) of the timeline, and its sound.

    loose  a few frames too many or too few are allowed.
    """
    start, stop = span or (0, edit.frames)

    def check(printed: str) -> None:
        try:
            _check(edit, out, start, stop, slack=(stop - start) // 20 if loose else max(1, (stop - start) // 100))
        except (OSError, ValueError) as error:  # what libav says of a broken file is one of these
            raise RunError(f"unreadable output: {error}") from error
        finally:
            out.unlink(missing_ok=True)

    return check


def _check(edit: Edit, out: Path, start: int, stop: int, *, slack: int) -> None:
    import av

    if not out.exists():
        raise RunError("no output")
    frames, sound = 0, 0.0
    with av.open(str(out)) as container:
        peers.check_size(container, edit.width, edit.height)
        for packet in container.demux():
            if packet.size and packet.stream.type == "video":
                frames += 1
            elif packet.size and packet.duration is not None and packet.time_base is not None:
                sound += float(packet.duration * packet.time_base)
    if abs(frames - (stop - start)) > slack:
        raise RunError(f"{frames} of {stop - start} frames")
    if edit.sound and abs(sound - (stop - start) / FPS) > 0.2 + slack / FPS:
        raise RunError(f"{sound:.1f} of {(stop - start) / FPS:g} s of sound")
    _check_pictures(edit, out, start, stop)
    if edit.sound:
        peers.check_loudness(peers.samples(out, (stop - start) / FPS), _expected_sound(edit, start, stop))


def _check_pictures(edit: Edit, out: Path, start: int, stop: int) -> None:
    """Compare some frames, made small, with what they should be, as `peers` does."""
    scale = max(1, edit.height // 270)
    size = edit.width // scale, edit.height // scale
    place = edit.title()
    title = peers.part(*place, scale=scale) if place else None
    letters = False  # in a picture that is bright itself there may be none to see
    for n in edit.ticks(start, stop):
        wanted = _expected(edit, n, *size)
        found = peers.planes(out, n - start, width=size[0], height=size[1])
        for window in edit.windows(n):
            if sentence := peers.difference(found, wanted, peers.part(*window, scale=scale)):
                raise RunError(f"frame {n} is another one at {window}: {sentence}")
        letters = letters or (title is not None and _has_letters(found[0][title], wanted[0][title]))
    if title and not letters:
        raise RunError("no text")


def _has_letters(found: Any, without: Any) -> bool:
    """Whether a part of the luma is brighter than it would be without a text."""
    return bool((found - without > 30).mean() > 0.01)


@functools.lru_cache(maxsize=32)
def _expected(edit: Edit, n: int, width: int, height: int) -> list[Any]:
    return edit.expected(n, width, height)


@functools.lru_cache(maxsize=32)
def _expected_sound(edit: Edit, start: int, stop: int) -> Any:
    """The sum of the sources in frames [start, stop): (2, N) float array."""
    import numpy as np

    step = AUDIO_HZ // FPS
    whole = np.zeros((2, edit.frames * step))
    for shot, begin, fade in edit.heard():
        sound = _sound(shot.file)[:, shot.trim * step : (shot.trim + shot.length) * step].astype(float)
        if fade and begin > 0:
            sound[:, : fade * step] *= np.linspace(0, 1, fade * step)
        if fade and begin + shot.length < edit.frames:
            sound[:, -fade * step :] *= np.linspace(1, 0, fade * step)
        room = whole[:, begin * step : begin * step + sound.shape[1]]
        room += sound[:, : room.shape[1]]
    return whole[:, start * step : stop * step]


@functools.lru_cache(maxsize=32)
def _sound(file: Path) -> Any:
    return peers.samples(file, 60)  # longer than any

"""Who else paints the pictures of `bench.kernel`, and how: libavfilter in this process; GStreamer, melt and moviepy as
programs.

All get raw pictures and throw theirs away. A filter graph runs on the calling thread and takes and gives frames in
memory. A program is run for a few pictures and for some more, and what one more costs is the difference: start-up and
first pictures are not in it. GStreamer gets one picture over and over without a copy, which stays in the caches, and
moviepy arrays that are RGB already; melt reads a raw film, whose copy out of the page cache is in its figure. Each has
the fastest settings found: GStreamer's compositor with its own bicubic scaling costs less than with bilinear, or with
videoscale before it.
"""

import inspect
import itertools
import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.filter import Graph

from bench import peers
from bench.measure import Command, RunError
from bench.peers import Mix

FILM_PICTURES = 20  # of the raw film, as many as a program paints


class FilterGraph:
    """A graph of libavfilter on one thread; its inputs [0:v] [1:v] … and its output [v] are 4:2:0.

    text    as on FFmpeg's command line, each label made before it is used
    sizes   width and height of each input
    """

    def __init__(self, text: str, sizes: Sequence[tuple[int, int]]) -> None:
        self._graph = graph = Graph()  # its nodes do not keep it alive
        graph.threads = 1
        options = "pix_fmt=yuv420p:time_base=1/1000000:frame_rate=30/1"
        self._inputs = [graph.add("buffer", f"video_size={width}x{height}:{options}") for width, height in sizes]
        pads = {f"{n}:v": (node, 0) for n, node in enumerate(self._inputs)}
        for chain in text.split(";"):
            before, between, after = re.fullmatch(r"((?:\[[^]]+\])*)(.+?)((?:\[[^]]+\])*)", chain).groups()
            nodes = [graph.add(*each.split("=", 1)) for each in between.split(",")]
            for left, right in itertools.pairwise(nodes):
                left.link_to(right)
            for n, label in enumerate(re.findall(r"[^][]+", before)):
                node, pad = pads.pop(label)
                node.link_to(nodes[0], pad, n)
            pads |= {label: (nodes[-1], n) for n, label in enumerate(re.findall(r"[^][]+", after))}
        self._output = graph.add("buffersink")
        pads["v"][0].link_to(self._output)
        graph.configure()
        self._pts = 0

    def paint(self, frames: Sequence[av.VideoFrame]) -> av.VideoFrame:
        """What comes out for one frame at each input. Raises BlockingIOError where the graph waits for more."""
        for node, frame in zip(self._inputs, frames, strict=True):
            frame.pts, frame.time_base = self._pts, Fraction(1, 1_000_000)
            node.push(frame)
        self._pts += 1
        return self._output.pull()


def filters(mix: Mix) -> str:
    """The cheapest graph for a mix: opaque layers beside one another, or one over a whole picture."""
    first, *above = mix.layers
    if not above:
        return f"[0:v]scale={first.width}:{first.height}:flags=bilinear[v]"
    if all(layer.opacity == 1 for layer in mix.layers):
        return peers.xstack(mix)
    (layer,) = above
    blend = f"blend=all_opacity={layer.opacity:g}"
    if (layer.width, layer.height) == (mix.width, mix.height):
        return f"[1:v][0:v]{blend}[v]"
    size = f"{layer.width}:{layer.height}"
    below = f"[0:v]split[whole][below];[below]crop={size}:{layer.x}:{layer.y}[part]"
    scaled = f"[1:v]scale={size}:flags=bilinear[above];[above][part]{blend}[both]"
    return f"{below};{scaled};[whole][both]overlay={layer.x}:{layer.y}[v]"


def xfade(mix: Mix) -> str:
    """A crossfade by the filter of that name, which knows no 4:2:0: its conversions are part of what it costs.

    It moves on by a sixty-millionth with every picture, from where the upper layer has its opacity.
    """
    return f"[0:v][1:v]xfade=duration=60:offset={-60 * mix.layers[1].opacity:g},format=yuv420p[v]"


def film(file: Path, *, width: int, height: int) -> Path:
    """Write a raw film of noise; the path it is at."""
    rng = np.random.default_rng(1)
    with av.open(str(file), "w") as container:
        stream = container.add_stream("rawvideo", rate=30, width=width, height=height, pix_fmt="yuv420p")
        noise = rng.integers(0, 256, (height * 3 // 2 + FILM_PICTURES, width), np.uint8)
        for n in range(FILM_PICTURES):
            frame = av.VideoFrame.from_ndarray(noise[n : n + height * 3 // 2], "yuv420p")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file


def gst(mix: Mix, pictures: int, *, source: tuple[int, int]) -> Command:
    """GStreamer's compositor on one thread. Every source is one picture of that width and height, frozen."""
    program = shutil.which("gst-launch-1.0")
    if program is None:
        return Command(who="gst", absent="no gst-launch-1.0 (Debian: gstreamer1.0-tools and its plugins)")

    def raw(width: int, height: int) -> str:
        return f"video/x-raw,format=I420,width={width},height={height},framerate={mix.fps}/1"

    argv = [program, "compositor", "name=c", "max-threads=1", "background=black", *peers.gst_pads(mix)]
    argv += ["!", raw(mix.width, mix.height), "!", "fakesink", "sync=false"]
    for n in range(len(mix.layers)):
        frozen = f"imagefreeze num-buffers={pictures} ! {raw(*source)}"  # it forgets the rate of its source
        argv += f"videotestsrc num-buffers=1 ! {raw(*source)} ! {frozen} ! c.sink_{n}".split()
    return Command(who="gst", argv=tuple(argv), check=_ended)


def _ended(printed: str) -> None:
    if "Got EOS" not in printed:
        raise RunError("GStreamer did not reach the end")


def melt(mix: Mix, pictures: int) -> Command:
    """MLT's composite transitions over a black track; its pictures are 4:2:2 within."""
    return peers.melt(replace(mix, seconds=pictures / mix.fps), peers.NULL)


def moviepy(mix: Mix, pictures: int, *, source: tuple[int, int], python: str) -> Command:
    """moviepy's composite of clips in memory, one picture after the other."""
    if not peers.has_moviepy(python):
        return Command(who="moviepy", absent=f"no moviepy in {Path(python).name} (see --moviepy-python)")
    layers = [[layer.x, layer.y, layer.width, layer.height, layer.opacity] for layer in mix.layers]
    work = {"layers": layers, "size": [mix.width, mix.height], "source": source, "fps": mix.fps, "pictures": pictures}
    script = f"import json, sys\nfrom typing import Any\n{inspect.getsource(_moviepy_paint)}"
    argv = (python, "-c", f"{script}\n_moviepy_paint(json.loads(sys.argv[1]))", json.dumps(work))
    return Command(who="moviepy", argv=argv, check=peers.counted(pictures, r"painted: (\d+)"))


def _moviepy_paint(work: dict[str, Any]) -> None:
    """The work in moviepy; sent as source text to an interpreter that has it, so it uses nothing else from here."""
    import numpy as np
    from moviepy import CompositeVideoClip, VideoClip  # type: ignore[import-not-found,unused-ignore]

    width, height = work["source"]
    noise = np.random.default_rng(1).integers(0, 256, (8, height, width, 3), np.uint8)
    clips = []
    for n, (x, y, *size, opacity) in enumerate(work["layers"]):
        clip = VideoClip(lambda t, n=n: noise[(round(t * work["fps"]) + n) % len(noise)], duration=3600)
        clip = clip if size == [width, height] else clip.resized(size)
        clip = clip.with_position((x, y))
        clips.append(clip if opacity == 1 else clip.with_opacity(opacity))
    covered = work["layers"][0] == [0, 0, *work["size"], 1]
    film = CompositeVideoClip(clips, size=tuple(work["size"]), use_bgclip=covered)
    painted = sum(film.get_frame(n / work["fps"]).size > 0 for n in range(work["pictures"]))
    print("painted:", painted)

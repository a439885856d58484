"""Frames → packets: one video and one audio encoder, in the working format's colours: on a muxer, or for a stream.

It decides encoder settings; it refuses to know where the packets go. Worker threads only, one call at a time.

Theory of operation of a stream's time stamps (PacketEncoder)
-------------------------------------------------------------
* Tick n's picture has the pts n + lead in units of 1/fps, its first sample the pts sample(n) + lead · rate/fps in units
  of 1/rate: both count from the mixer's tick 0, so nothing drifts, and ticks that were left out leave a hole.
* An AAC encoder begins with 1024 samples of its own before the first one of ours: its first packet would have a
  negative time stamp, which RTMP, FLV and MP4 cannot say. `lead`, as many ticks as are needed for it, shifts picture
  and sound alike: a decoder's sample with pts p is our sample p, and A and V are apart by less than one sample.
* Several ticks with one picture (the mixer was late): the picture is the last tick's and is encoded once; their sound
  is whole. A tick without its picture (nobody had the time to encode it) leaves its sound.
"""

from __future__ import annotations

import math
import os
from fractions import Fraction
from typing import Any, Final

import av
import msgspec
import numpy as np
from av.audio.codeccontext import AudioCodecContext
from av.codec.context import Flags
from av.container import OutputContainer
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType
from av.video.reformatter import Interpolation, VideoReformatter

from engine.errors import SinkRejected
from engine.frame import AudioFrame, Samples, VideoFrame
from engine.packet import Packet, Track
from engine.spec import H264_MAX_QP, VP9_MAX_QP, EncoderSpec, MixerSpec, Raster
from engine.timebase import first_sample

GOP_SECONDS: Final = 2
KEYFRAME_PAUSE: Final = Fraction(1, 2)  # seconds; keyframes that are asked for, closer, would eat the bit rate
MAX_TERM: Final = 10**9  # of a frame rate: libvpx takes no more, H.264 twice that
PRIMING: Final = 1024  # samples that libav's AAC encoder puts before the first
# What x264 makes of a film depends on how many threads it has: they are as many on every machine, 3 up to 1080p and 6
# at 2160p. Each costs as much memory as six pictures (measured).
PICTURE_A_THREAD: Final = 1_400_000  # pixels
LEAST_THREADS: Final = 3
PIXELS_A_THREAD: Final = 30_000_000  # a second; slices cost an eighth more, twice the CPU of small pictures (measured)
CONSTANT_QUALITY: Final = 20.0
VP9_QUALITY: Final = 31  # of constant quality, where none is said
KILOBIT: Final = 1000  # libx264 and libvpx count in kbit/s, and take 0 for none
_BT709: Final = 1  # the same number is matrix, primaries and transfer (ITU-T H.273)
_LIMITED: Final = 1


class Encoding(msgspec.Struct, frozen=True):
    """How a file's extension is encoded: the muxer, and the codecs of picture and sound; None = it has none."""

    muxer: str
    video: str | None
    audio: str | None
    options: dict[str, str] = {}


class Encoder:
    """Encodes into an open muxer. Picture n and its sound go in together; packets are written interleaved.

    What is not of the raster's size is scaled to it.

    AAC is made by libav's own coder, "twoloop". Its "fast" one takes less time, but what it makes of a loud pure tone
    wobbles by 5 dB (10 dB of noise below it instead of 45), whatever its other options are.
    """

    def __init__(self, container: OutputContainer, encoding: Encoding, mixer: MixerSpec, spec: EncoderSpec) -> None:
        self._container = container
        self._mixer = mixer
        self._video = self._add_video(encoding.video, spec) if encoding.video is not None else None
        self._audio = self._add_audio(encoding.audio, spec) if encoding.audio is not None else None
        self._scaler = VideoReformatter()  # one for all pictures: a new one is a third of the work
        self._samples = 0

    def _add_video(self, codec: str, spec: EncoderSpec) -> av.VideoStream:
        stream: Any = self._container.add_stream(codec, rate=self._mixer.fps)
        context = stream.codec_context
        _set_picture(context, self._mixer, spec)
        context.options = x264_options(spec) if codec == "libx264" else vp9_options(spec)
        if codec == "libx264":
            _set_threads(context, self._mixer.raster)
        return stream  # type: ignore[no-any-return]

    def _add_audio(self, codec: str, spec: EncoderSpec) -> av.AudioStream:
        layout = _layout(self._mixer.audio.channels)
        stream: Any = self._container.add_stream(codec, rate=self._mixer.audio.rate, layout=layout)
        if not codec.startswith("pcm"):
            stream.codec_context.bit_rate = spec.audio_bit_rate
        return stream  # type: ignore[no-any-return]

    def encode(self, n: int, picture: VideoFrame, sound: AudioFrame, span: int = 1) -> None:
        """Pictures [n, n + span), all the same, and the sound that follows the last. Raises av.error.FFmpegError."""
        if self._video is not None:
            for pts in range(n, n + span):
                frame = self._scaled(picture_frame(picture))
                frame.pts, frame.time_base = pts, 1 / self._mixer.fps
                self._container.mux(self._video.encode(frame))
        if self._audio is not None and len(sound):
            block = sound_frame(sound.samples, rate=self._mixer.audio.rate, pts=self._samples)
            self._samples += len(sound)
            self._container.mux(self._audio.encode(block))

    def _scaled(self, frame: av.VideoFrame) -> av.VideoFrame:
        raster = self._mixer.raster
        if (frame.width, frame.height) == (raster.width, raster.height):
            return frame
        scaled = self._scaler.reformat(
            frame, width=raster.width, height=raster.height, interpolation=Interpolation.BICUBIC, threads=1
        )
        tag_colours(scaled)
        return scaled

    def flush(self) -> None:
        """What the encoders still hold. Raises av.error.FFmpegError."""
        for stream in (self._video, self._audio):
            if stream is not None:
                self._container.mux(stream.encode(None))


class PacketEncoder:
    """Encodes for a stream: H.264 without delay, AAC. See the module for its time stamps.

    Opens both encoders; raises av.error.FFmpegError or ValueError when they refuse the settings.
    """

    def __init__(self, mixer: MixerSpec, spec: EncoderSpec) -> None:
        self._mixer = mixer
        rate, fps = mixer.audio.rate, mixer.fps
        self.gop = gop_ticks(mixer, spec)
        self.lead = lead_of(mixer)
        self._first_pts = math.ceil(self.lead * rate / fps)  # of tick 0's sound
        self._video, self._audio = _open_h264(mixer, spec), _open_aac(mixer, spec)
        self._pause = math.ceil(KEYFRAME_PAUSE * fps)
        self._keyframe: int | None = None  # pts of the last
        self._wanted = False
        # read by anyone
        self.video = Track(
            kind="video",
            codec="h264",
            extradata=bytes(self._video.extradata or b""),
            time_base=1 / fps,
            width=mixer.raster.width,
            height=mixer.raster.height,
        )
        self.audio = Track(
            kind="audio",
            codec="aac",
            extradata=bytes(self._audio.extradata or b""),
            time_base=Fraction(1, rate),
            rate=rate,
            channels=mixer.audio.channels,
        )

    def encode(
        self, n: int, picture: VideoFrame | None, sound: AudioFrame, span: int = 1, *, keyframe: bool = False
    ) -> list[Packet]:
        """Ticks [n, n + span): one picture, the last tick's, and the sound of them all. Raises av.error.FFmpegError.

        picture   None: it is left out, the one before it stays.
        sound     as many channels as the mixer's, or one for all; it begins with tick n's first sample.
        keyframe  asks for one: at once or, where the last one is less than half a second ago, then.
        Returns   packets with `arrival` 0: who publishes them sets it.
        """
        self._wanted |= keyframe
        packets = self._sound(n, sound) if len(sound) else []
        return packets if picture is None else packets + self._picture(n + span - 1 + self.lead, picture)

    def flush(self) -> list[Packet]:
        """What the encoders still hold; nothing can be encoded after it. Raises av.error.FFmpegError."""
        return self._packets(self.audio, self._audio.encode(None)) + self._packets(self.video, self._video.encode(None))

    def _picture(self, pts: int, picture: VideoFrame) -> list[Packet]:
        frame = picture_frame(picture)
        frame.pts, frame.time_base = pts, self.video.time_base
        since = self.gop if self._keyframe is None else pts - self._keyframe
        if since >= self.gop or (self._wanted and since >= self._pause):
            frame.pict_type = PictureType.I
            self._keyframe, self._wanted = pts, False
        return self._packets(self.video, self._video.encode(frame))

    def _sound(self, n: int, sound: AudioFrame) -> list[Packet]:
        channels = self._mixer.audio.channels
        samples = sound.samples
        if sound.channels != channels:
            samples = np.ascontiguousarray(np.broadcast_to(samples, (channels, len(sound))))
        rate = self._mixer.audio.rate
        block = sound_frame(samples, rate=rate, pts=self._first_pts + first_sample(n, rate=rate, fps=self._mixer.fps))
        return self._packets(self.audio, self._audio.encode(block))

    def _packets(self, track: Track, coded: list[Any]) -> list[Packet]:
        packets = []
        for each in coded:
            duration = 1 if track is self.video else each.duration
            times = {"pts": each.pts, "dts": each.dts, "duration": duration, "arrival": 0}
            packets.append(Packet(track, bytes(each), keyframe=each.is_keyframe, **times))
        return packets


def lead_of(mixer: MixerSpec) -> int:
    """The time stamp of tick 0, in ticks: sound begins before its own, and none may be negative."""
    return math.ceil(PRIMING * mixer.fps / mixer.audio.rate)


def gop_ticks(mixer: MixerSpec, spec: EncoderSpec) -> int:
    """Ticks from one keyframe to the next at most."""
    return spec.gop or math.ceil(GOP_SECONDS * mixer.fps)


def _set_picture(context: Any, mixer: MixerSpec, spec: EncoderSpec) -> None:
    context.width, context.height = mixer.raster.width, mixer.raster.height
    context.pix_fmt = "yuv420p"
    context.time_base = 1 / mixer.fps
    tag_colours(context)
    context.gop_size = gop_ticks(mixer, spec)
    if spec.bit_rate is not None:
        context.bit_rate = max(KILOBIT, spec.bit_rate)


def tag_colours(pictures: Any) -> None:
    """Says of a codec context's pictures, or of a frame, that they are BT.709, limited range."""
    pictures.color_primaries = pictures.color_trc = pictures.colorspace = _BT709
    pictures.color_range = _LIMITED


def open_joint(mixer: MixerSpec, spec: EncoderSpec, *, number: int) -> VideoCodecContext:
    """An H.264 encoder as a film's, for a stretch between copied packets: its parameter sets have that number."""
    context = _h264(mixer, spec)
    context.options = x264_options(spec) | {"x264-params": f"annexb=0:sps-id={number}"}
    _set_threads(context, mixer.raster)
    context.open()
    return context  # type: ignore[no-any-return]


def _set_threads(context: Any, raster: Raster) -> None:
    context.thread_type = "FRAME"  # slice threads, the default, cost 13-15 % more
    context.thread_count = max(LEAST_THREADS, math.ceil(raster.width * raster.height / PICTURE_A_THREAD))


def _h264(mixer: MixerSpec, spec: EncoderSpec) -> Any:
    context: Any = av.CodecContext.create("libx264", "w")
    _set_picture(context, mixer, spec)
    context.framerate = mixer.fps
    context.flags |= Flags.global_header  # with annexb=0: avcC as extradata, length-prefixed packets
    return context


def _open_h264(mixer: MixerSpec, spec: EncoderSpec) -> VideoCodecContext:
    context = _h264(mixer, spec)
    # Keyframes come when `encode` says so, at even distances for segmenters: none at a cut.
    live = {"tune": "zerolatency", "forced-idr": "1", "sc_threshold": "0", "x264-params": "annexb=0"}
    context.options = x264_options(spec) | live
    raster = mixer.raster
    needed = math.ceil(raster.width * raster.height * mixer.fps / PIXELS_A_THREAD)
    context.thread_count = min(needed, os.cpu_count() or 1)  # as slices: threads of whole frames would delay them
    context.open()
    return context  # type: ignore[no-any-return]


def _open_aac(mixer: MixerSpec, spec: EncoderSpec) -> AudioCodecContext:
    context: Any = av.CodecContext.create("aac", "w")
    context.sample_rate, context.time_base = mixer.audio.rate, Fraction(1, mixer.audio.rate)
    context.layout, context.format = _layout(mixer.audio.channels), "fltp"
    context.bit_rate = spec.audio_bit_rate
    context.flags |= Flags.global_header
    context.open()
    return context  # type: ignore[no-any-return]


def check_picture(codec: str, mixer: MixerSpec, spec: EncoderSpec, *, what: str, where: str) -> None:
    """Raises SinkRejected: a frame rate or a profile that no codec has; `what` begins the sentence."""
    if max(mixer.fps.as_integer_ratio()) > MAX_TERM:
        raise SinkRejected(f"{what}: a frame rate of {mixer.fps} has too many digits", where=where)
    if codec == "libx264" and spec.quality == 0 and spec.profile is not None:
        raise SinkRejected(f"{what}: quality 0 is lossless, which profile {spec.profile} is not", where=where)


def picture_frame(picture: VideoFrame) -> av.VideoFrame:
    """The libav frame over a picture's own memory, if it can; tagged BT.709 limited. Alpha is left out."""
    if picture.buffer is None:
        frame = copied(picture, "yuv420p")
    elif (
        picture.height % 4
    ):  # PyAV 18 would take the buffer for a picture of two rows less, with chroma that is not there
        frame = av.VideoFrame.from_ndarray(picture.buffer, "yuv420p")
    else:
        frame = av.VideoFrame.from_numpy_buffer(picture.buffer, "yuv420p")
    tag_colours(frame)
    return frame


def sound_frame(samples: Samples, *, rate: int, pts: int) -> av.AudioFrame:
    """The libav frame of (C, N) samples; `pts` is the index of the first."""
    frame = av.AudioFrame.from_ndarray(samples, "fltp", _layout(len(samples)))
    frame.sample_rate = rate
    frame.pts, frame.time_base = pts, Fraction(1, rate)
    return frame


def _layout(channels: int) -> str:
    return "mono" if channels == 1 else "stereo"


def copied(picture: VideoFrame, form: str) -> av.VideoFrame:
    """A libav frame with a copy of a picture's planes; those that its form does not have are left out."""
    frame = av.VideoFrame(picture.width, picture.height, form)
    for plane, source in zip(frame.planes, picture.planes, strict=False):
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
        rows[: source.shape[0], : source.shape[1]] = source
    return frame


def x264_options(spec: EncoderSpec) -> dict[str, str]:
    """libx264's options for a spec; qp limits end at 51, where H.264 ends."""
    options = {"preset": spec.preset}
    if spec.profile is not None:
        options["profile"] = spec.profile
    if spec.bit_rate is None:
        options["crf"] = f"{CONSTANT_QUALITY if spec.quality is None else spec.quality:g}"
    if spec.max_bit_rate is not None:
        options["maxrate"] = options["bufsize"] = str(max(KILOBIT, spec.max_bit_rate))
    for name, qp in (("qmin", spec.qp_min), ("qmax", spec.qp_max)):
        if qp is not None:
            options[name] = str(min(qp, H264_MAX_QP))
    return options


def vp9_options(spec: EncoderSpec) -> dict[str, str]:
    """libvpx-vp9's options for a spec; x264's presets become its speeds 5 (fastest) … 1 (slowest)."""
    speeds = {"ultrafast": 5, "superfast": 5, "veryfast": 5, "faster": 5, "fast": 4, "medium": 3, "slow": 2}
    options = {"deadline": "good", "cpu-used": str(speeds.get(spec.preset, 1)), "row-mt": "1"}
    low, high = spec.qp_min or 0, VP9_MAX_QP if spec.qp_max is None else spec.qp_max
    options |= {"qmin": str(low), "qmax": str(high)}
    if spec.bit_rate is None:
        quality = VP9_QUALITY if spec.quality is None else spec.quality
        options |= {"crf": f"{min(max(quality, low), high):g}", "b": "0"}  # libvpx refuses one beyond its limits
    return options

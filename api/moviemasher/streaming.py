"""The streaming server: a cast or mashes mixed live as stream ``cast/ID``, to be played at ``/hls/ID/index.m3u8``.

It decides what a client may ask of a stream, how many there are and when one has been forgotten; it refuses to know how
anything is mixed. Streams end with the process: what is live is not kept. Everything else that streams have, this one
has too: RTMP, FLV, recordings, pushes.

A definition whose source is the name of a live stream is that stream; other sources are files of the user's, shared
ones, or at URLs, which are fetched before they come on the air. A cut that is overtaken meanwhile by a later one is not
shown any more, and its answer says so: ``{"overtaken": true}``. That is no error, the stream is as if it had been on.
What is fetched for a stream takes no place of another's, and is given up when the stream ends. Copies of it stay for as
long as something that is on the air, or will be, needs them.
"""

from __future__ import annotations

import logging
import shutil
import uuid
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import trio

from api.moviemasher.data import Named, wanted
from api.moviemasher.documents import Documents, with_mashes
from api.moviemasher.door import Handler, Placed
from api.moviemasher.fields import Object
from api.moviemasher.files import Files
from api.moviemasher.mash import Film, read_cast
from api.moviemasher.options import Options
from api.moviemasher.renders import complete, fonts_of
from api.moviemasher.template import definitions_used, file_of, located, without_built_in
from api.moviemasher.users import SHARED
from api.wire import CASTS
from engine.errors import EngineError, InvalidMash, InvalidSpec, NotFound, Overloaded, SourceUnavailable
from engine.fetch import Fetcher, file_in
from engine.media import ink_measure
from engine.spec import AudioFormat, EncoderSpec, EventSpec, MixerSpec, Raster
from engine.threads import in_thread
from engine.timebase import frame_rate

if TYPE_CHECKING:
    from engine import Engine

log = logging.getLogger(__name__)

FORMATS: Final = {  # and where a stream is played
    "hls": "/hls/{id}/index.m3u8",
    "flv": f"/{CASTS}/{{id}}.flv",
    "rtmp": f"rtmp://{{host}}:{{port}}/{CASTS}/{{id}}",
}
READY: Final = 2  # seconds until a playlist has its first segment
MAX_STREAMS: Final = 16
MAX_OF_ONE: Final = 4  # user's
IDLE: Final = 300.0  # seconds that nobody asks for a stream, and nobody watches it, until it ends
LOOK_EVERY: Final = 5.0
UNSET: Final = Raster(320, 240)
LIVE: Final = ("audio", "image", "video", "videosequence")  # types of definitions whose sources may be streams


class Start(msgspec.Struct, rename="camel"):
    """What stream is wanted; what is on it from the beginning, if anything."""

    width: int | None = None
    height: int | None = None
    video_rate: float | None = None
    format: str = "hls"
    mash_objects: list[Object] = []
    cast: Object | None = None
    definition_objects: list[Any] = []


class Cut(msgspec.Struct, rename="camel"):
    """What comes on a stream: mashes, the lowest first, or a cast. One that is only an id is a saved one."""

    id: str
    mash_objects: list[Object] = []
    cast: Object | None = None
    definition_objects: list[Any] = []


class Preload(msgspec.Struct, rename="camel"):
    """What will be cut to soon."""

    id: str
    files: list[Any] = []
    definition_objects: list[Any] = []


class Live(msgspec.Struct):
    """One stream: whose it is, what its mix is like, when it was asked for last.

    cuts    how many were asked for.
    on_air  which of them is on, counted from 1.
    copies  of what is at URLs, how many were made; `fetcher` makes them, of this stream only.
    folders of copies for what was asked for and has come on the air, or will not.
    """

    id: str
    user: str
    format: str
    spec: EventSpec
    fetcher: Fetcher
    touched: float
    cuts: int = 0
    on_air: int = 0
    copies: int = 0
    folders: set[Path] = set()
    scopes: list[trio.CancelScope] = []

    @contextmanager
    def on(self) -> Iterator[None]:
        """What is done meanwhile is given up by `end`. Raises InvalidSpec then, whatever else was wrong."""
        with trio.CancelScope() as scope:
            self.scopes.append(scope)
            try:
                yield
            except EngineError:  # what comes out of a thread goes on for a moment, without what `end` has taken away
                if not scope.cancel_called:
                    raise
            finally:
                self.scopes.remove(scope)
        if scope.cancel_called:
            raise InvalidSpec("stream not found", where="id")

    def end(self) -> None:
        """Gives up what is done for it."""
        for scope in self.scopes:
            scope.cancel()

    @contextmanager
    def copying_to(self, copies: Path) -> Iterator[Path]:
        """A new folder in the stream's own one below `copies`; afterwards it is one of `folders`."""
        folder = copies / self.id / str(uuid.uuid4())
        try:
            yield folder
        finally:
            self.folders.add(folder)


class Streaming:
    """Answers the requests, and ends what is forgotten while `run` runs."""

    def __init__(
        self, engine: Engine, documents: Callable[[], Documents], files: Callable[[], Files], options: Options
    ) -> None:
        settings = engine.settings
        self._engine = engine
        self._documents = documents
        self._files = files
        self._size = options.output if settings.output_size else UNSET
        self._rate = frame_rate(settings.output_rate)
        self._data = Path(settings.data).absolute()
        self._copies = self._data / "casts"
        self._streams: dict[str, Live] = {}
        self._disk = trio.CapacityLimiter(2)

    def handlers(self) -> dict[str, Handler]:
        """What answers."""
        return {
            "/streaming/start": self._start,
            "/streaming/cut": self._cut,
            "/streaming/preload": self._preload,
            "/streaming/delete": self._delete,
            "/streaming/list": self._list,
        }

    def placed(self) -> dict[str, Placed]:
        """What answers where the client must be told an address."""
        return {"/streaming/status": self._status}

    async def run(self) -> None:
        """Ends streams that nobody asks for and nobody watches, and removes copies of the past, until cancelled."""
        await self._remove(self._copies)  # what an earlier process left
        while True:
            await trio.sleep(LOOK_EVERY)
            watched = {stream.name for stream in self._engine.streams() if stream.readers}
            for live in list(self._streams.values()):
                if live.spec.stream() in watched:
                    live.touched = trio.current_time()
                elif trio.current_time() - live.touched > IDLE:
                    log.info("stream %s: nobody watches it", live.spec.stream())
                    await self._end(live)
                await self._tidy(live)

    # Requests

    async def _start(self, user: str, request: Object) -> Object:
        asked = wanted(request, Start)
        if asked.format not in FORMATS:
            raise InvalidSpec(f"format {asked.format[:40]!r} is not one of {', '.join(FORMATS)}", where="format")
        if asked.format == "rtmp" and not self._engine.rtmp_port:
            raise InvalidSpec("format 'rtmp': this server does not listen to RTMP", where="format")
        if len(self._streams) >= MAX_STREAMS or sum(each.user == user for each in self._streams.values()) >= MAX_OF_ONE:
            raise Overloaded(f"{len(self._streams)} streams are on, more than {MAX_STREAMS}, or {MAX_OF_ONE} of yours")
        live = self._new(user, asked)
        self._streams[live.id] = live
        try:
            with live.on():
                await self._engine.create_event(live.spec)
                if asked.mash_objects or asked.cast is not None:
                    await self._show(live, asked)
        except BaseException:
            with trio.CancelScope(shield=True):
                await self._end(live)
            raise
        self._engine.hls(live.spec.stream())  # begins
        return self._described(live) | {"readySeconds": READY}

    def _new(self, user: str, asked: Start) -> Live:
        raster = Raster.of(asked.width or self._size.width, asked.height or self._size.height)
        rate = self._rate if asked.video_rate is None else _rate(asked.video_rate)
        name = str(uuid.uuid4())
        spec = EventSpec(
            name=f"{CASTS}-{name}",
            path=CASTS,
            stream_name=name,
            mixer=MixerSpec(raster=raster, fps=rate, audio=AudioFormat(44_100)),
            encoder=EncoderSpec(gop=round(rate * READY)),
        )
        allow_private = self._engine.settings.allow_private
        fetcher = Fetcher(base=self._data, cache=self._data / "cache", allow_private=allow_private)
        return Live(name, user, asked.format, spec, fetcher, trio.current_time())

    async def _status(self, user: str, request: Object, host: str) -> Object:
        live = await self._find(user, wanted(request, Named).id)
        if not self._engine.hls(live.spec.stream()).is_ready():
            return {}
        host = host or self._engine.settings.host  # of HTTP/1.0
        return {"streamUrl": FORMATS[live.format].format(id=live.id, host=host, port=self._engine.rtmp_port)}

    async def _cut(self, user: str, request: Object) -> Object:
        asked = wanted(request, Cut)
        live = await self._find(user, asked.id)
        with live.on():
            is_shown = await self._show(live, asked)
        return {} if is_shown else {"overtaken": True}

    async def _preload(self, user: str, request: Object) -> Object:
        asked = wanted(request, Preload)
        live = await self._find(user, asked.id)
        named = [_name_of(each) for each in asked.files]
        named += [file_of(each) for each in asked.definition_objects if isinstance(each, dict)]
        with live.on(), live.copying_to(self._copies) as folder:
            for source in dict.fromkeys(each for each in named if each.lower().startswith(("http:", "https:"))):
                await self._place(live, source, folder)  # from now on it is in the cache
        return {}

    async def _delete(self, user: str, request: Object) -> Object:
        await self._end(await self._find(user, wanted(request, Named).id))
        return {}

    async def _list(self, user: str, request: Object) -> Object:
        return {"streams": [self._described(live) for live in self._streams.values() if live.user == user]}

    async def _find(self, user: str, name: str) -> Live:
        """Raises InvalidSpec: the user has no such stream; Overloaded: it has failed."""
        live = self._streams.get(name)
        if live is None or live.user != user:
            raise InvalidSpec("stream not found", where="id")
        try:
            event = self._engine.event(live.spec.name)
        except NotFound:
            await self._end(live)
            raise InvalidSpec("stream not found", where="id") from None
        if event.state != "on air":
            raise Overloaded(f"the stream has {event.state}: {event.error}", where=name)
        live.touched = trio.current_time()
        return live

    def _described(self, live: Live) -> Object:
        mixer = live.spec.mixer
        raster, rate = mixer.raster, float(mixer.fps)
        size = {"width": raster.width, "height": raster.height, "videoRate": int(rate) if rate.is_integer() else rate}
        return {"id": live.id, **size, "format": live.format, "stream": live.spec.stream()}

    async def _end(self, live: Live) -> None:
        self._streams.pop(live.id, None)
        live.end()
        with suppress(NotFound):
            await self._engine.delete_event(live.spec.name)
        await self._remove(self._copies / live.id)

    async def _tidy(self, live: Live) -> None:
        """Removes the copies of which nothing is on the air, or will be."""
        with suppress(NotFound):  # it has no event: all of them go when it ends
            needed = {Path(file).parent for file in self._engine.event(live.spec.name).files_used()}
            for folder in live.folders - needed:
                live.folders.remove(folder)
                await self._remove(folder)

    async def _remove(self, folder: Path) -> None:
        try:
            await in_thread(partial(shutil.rmtree, folder, ignore_errors=True), limiter=self._disk)
        except Overloaded as err:
            log.warning("%s stays until the next start: %s", folder, err)

    # What is shown

    async def _show(self, live: Live, asked: Start | Cut) -> bool:
        """Cuts to it at a slot to come; False: a later cut was ready before. Raises InvalidMash, SourceError."""
        live.cuts = number = live.cuts + 1
        saving = partial(_whole, self._documents(), live.user, asked)
        document = await in_thread(saving, limiter=self._disk)
        streams = _Streams(self._engine)
        places: dict[str, str] = {}
        with live.copying_to(self._copies) as folder:
            for definition, source in definitions_used(document):
                if source not in places and not (source in streams and definition["type"] in LIVE):
                    places[source] = str(await self._place(live, source, folder))
            document = located(document, places)
            film = await in_thread(_film, document, live.spec.mixer.raster, streams, limiter=self._disk)
            files = {name: source for name, source in film.sources.items() if source not in streams}
            if number < live.on_air:
                return False
            self._engine.event(live.spec.name).play(film.program, sources=files, fonts=film.fonts)
        live.on_air = number
        return True

    async def _place(self, live: Live, source: str, folder: Path) -> Path:
        """Where the file is: one of the user's, or shared, or a copy in the folder. Raises SourceError, InvalidJob."""
        if source.lower().startswith(("http:", "https:", "data:")):
            live.copies = number = live.copies + 1  # now: another cut may come meanwhile
            await in_thread(partial(folder.mkdir, parents=True, exist_ok=True), limiter=self._disk)
            return await live.fetcher.fetch_media(source, folder, f"copy-{number}")
        mine = self._files().folder(live.user)
        path = await in_thread(file_in, (mine, mine.parent / SHARED), source, limiter=self._disk)
        if path is None:
            sentence = f'source "{source[:200]}" is no live stream and no file of its user'
            raise SourceUnavailable(sentence, where=source)
        return path


def _whole(documents: Documents, user: str, asked: Start | Cut) -> Object:
    """The document of the cast, or of the mashes; it, or mashes, that are ids only are the user's saved ones.

    Raises NotFound; InvalidMash: there are no mashes, or the cast has no layers. An empty array of layers is nothing,
    which may be wanted.
    """
    cast, definitions = asked.cast, without_built_in(asked.definition_objects)
    if cast is not None and cast.keys() == {"id"}:
        saved = documents.get("cast", user, str(cast["id"]))
        cast, definitions = saved.document, [*definitions, *without_built_in(saved.definitions)]
    needed: list[Object] = []

    def filled(mash: Object) -> Object:
        if mash.keys() != {"id"}:
            return mash
        found = documents.get("mash", user, str(mash["id"]))
        needed.extend(without_built_in(found.definitions))
        return found.document

    if cast is None:
        cast = _cast_of([filled(mash) for mash in asked.mash_objects])
    else:
        cast = {**cast, "layers": with_mashes(cast.get("layers"), filled)}
    return {"cast": cast, "definitions": [*definitions, *needed]}


class _Streams(Container[str]):
    """The names of live streams, now."""

    def __init__(self, engine: Engine) -> None:
        self._names = {stream.name for stream in engine.streams()} | {pull.name for pull in engine.pulls()}

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self._names


def _rate(number: float) -> Fraction:
    try:
        return frame_rate(number)
    except ValueError as err:
        raise InvalidSpec(f"videoRate: {err}", where="videoRate") from None


def _film(document: Object, raster: Raster, streams: Container[str]) -> Film:
    """Worker threads only: media files are looked into."""
    files = [each for each in document["definitions"] if each.get("source") not in streams]
    completed = complete({**document, "definitions": files})["definitions"]
    live = [each for each in document["definitions"] if each.get("source") in streams]
    measure = ink_measure(fonts_of(document))
    return read_cast(document["cast"], [*completed, *live], raster=raster, streams=streams, measure=measure)


def _cast_of(mashes: list[Object]) -> Object:
    """The cast of whole mashes whose lowest is the first; a cast's lowest is its last."""
    if not mashes:
        raise InvalidMash("$.mashObjects: there are no mashes", where="$.mashObjects")
    layers = [{"type": "mash", "mash": mash} for mash in reversed(mashes)]
    colour = mashes[0].get("color")
    return {"layers": layers} | ({"color": colour} if isinstance(colour, str) else {})


def _name_of(file: object) -> str:
    if isinstance(file, dict):
        file = next((file[name] for name in ("source", "url", "file") if isinstance(file.get(name), str)), "")
    return file if isinstance(file, str) else ""

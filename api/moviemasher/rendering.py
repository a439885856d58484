"""The rendering server: what a client wants rendered becomes a job, and how far that is, is told in the client's words.

It decides what a job is told of a request, and what the client is to do when it is over; it refuses to know how a job
is done: the queue and its workers do that, after a restart too.

A request is kept in ``renderings/USER/RENDERING.json`` of the data folder, where nobody looks, for as long as its job
is; that job's template is ``mash:USER/ID/RENDERING``. What is made of it goes into the folder ``ID/RENDERING`` of the
user's media.

``mash:ID`` and ``mash:USER/ID`` are a saved mash or cast: any job may have that as its template, and assets besides.
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

import msgspec
import trio

from api.moviemasher.data import wanted
from api.moviemasher.documents import ID, Documents, Found
from api.moviemasher.door import Handler
from api.moviemasher.fields import Object
from api.moviemasher.files import Files, kept_on_disk
from api.moviemasher.options import Options
from api.moviemasher.outputs import IMAGE, SEQUENCE, VIDEO, read_outputs
from api.moviemasher.renders import Result, film_of
from api.moviemasher.uploads import products_of
from api.moviemasher.users import SHARED
from api.store import Filter
from engine.errors import EngineError, InvalidMash, InvalidSpec, NotFound, Overloaded, reason_of
from engine.fetch import file_in
from engine.jobdocument import NULL, raw
from engine.jobs import ERROR, FINISHED, QUEUED
from engine.structs import ready
from engine.template import Kept
from engine.threads import in_thread

if TYPE_CHECKING:
    from api.queue import JobQueue

log = logging.getLogger(__name__)

TYPE: Final = "rendering"  # of our jobs
UPLOAD: Final = "upload"  # a tag of those that somebody waits for before he can go on
FOLDER: Final = "renderings"
MAX_WAITING: Final = 500  # renderings
LONGEST: Final = 6 * 3600  # seconds that one may take: nobody's mash holds up the others for good
SEQUENCE_RATE: Final = 10
FORGET_EVERY: Final = 3600  # seconds
T = TypeVar("T")
_RENDERING: Final = re.compile(r"[0-9a-f-]{36}")


class Start(msgspec.Struct):
    """What is to be rendered."""

    mash: Object | None = None
    cast: Object | None = None
    definitions: list[Any] = []
    outputs: list[Any] = []
    upload: bool = False


class Ask(msgspec.Struct, rename="camel"):
    """Which rendering somebody asks about."""

    id: str
    rendering_id: str


class Purpose(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What a job of ours is for: the id of what is rendered, the types of its outputs, the definition of an upload."""

    id: str
    outputs: list[str]
    kind: Literal["mash", "cast", "upload"] = "mash"
    definition: Object | None = None


class Source(msgspec.Struct):
    """What a job's template says of where its document is."""

    src: Any = None


class Told(msgspec.Struct):
    """What a job says of a rendering; whatever else it holds is skipped."""

    template: Source
    state: str
    purpose: msgspec.Raw = NULL
    result: msgspec.Raw = NULL
    error: Any = None


ready(Told, Purpose, Result)


class Rendering:
    """Answers the requests, and opens the documents of their jobs."""

    def __init__(
        self,
        queue: JobQueue,
        documents: Callable[[], Documents],
        files: Callable[[], Files],
        options: Options,
        *,
        data: Path,
    ) -> None:
        self._queue = queue
        self._documents = documents
        self._files = files
        self._options = options
        self._folder = data / FOLDER
        self._disk = trio.CapacityLimiter(2)

    async def run(self) -> None:
        """Forgets the requests whose jobs have been deleted, now and then, until cancelled."""
        while True:
            try:
                for path in await self._in_thread(self._kept):
                    try:
                        await self._queue.record(path.stem)
                    except NotFound:
                        await self._in_thread(_forget, path)
            except EngineError as err:  # later, then
                log.warning("renderings that are over stay: %s", err)
            await trio.sleep(FORGET_EVERY)

    def _kept(self) -> list[Path]:
        """The requests of all users but those so new that their job may not be there yet."""
        long_ago = time.time() - FORGET_EVERY
        try:
            return [path for path in self._folder.glob("*/*") if path.stat().st_mtime < long_ago]
        except OSError as err:
            log.warning("%s cannot be looked through: %s", self._folder, reason_of(err))
            return []

    def handlers(self) -> dict[str, Handler]:
        """What answers."""
        return {"/rendering/start": self._start, "/rendering/status": self._status}

    # Start

    async def _start(self, user: str, request: Object) -> Object:
        asked = wanted(request, Start)
        if asked.upload:
            purpose, document = await self._in_thread(self._uploaded, user, asked)
            if not purpose.outputs:  # there is nothing to render
                definition = {**(purpose.definition or {}), "url": (purpose.definition or {}).get("source")}
                return _callback("/data/definition/put", {"definition": definition})
        else:
            await self._in_thread(self._files().check_room, user)
            purpose, document = await self._in_thread(self._composed, asked)
        await self._check_turn()
        rendering = str(uuid.uuid4())
        place = None if asked.upload else self._files().folder(user) / purpose.id  # that of an upload is there
        if asked.upload:  # what was made of it before stays: documents may name it
            await self._in_thread(self._files().begin_products, user, purpose.id, rendering)
        await self._in_thread(self._keep, user, rendering, document, place)
        job = {
            "uid": rendering,
            "type": TYPE,
            "tags": UPLOAD if asked.upload else "",
            "timeout": LONGEST,
            "template": {"src": f"mash:{user}/{purpose.id}/{rendering}", "composition": "*"},
            "purpose": purpose,
        }
        await self._queue.create([{key: raw(value) for key, value in job.items()}], creator=user)
        return _callback("/rendering/status", {"id": purpose.id, "renderingId": rendering})

    async def _check_turn(self) -> None:
        """Whether it will be somebody's turn to render one more. Raises Overloaded."""
        self._queue.check_workers()
        waiting, _ = await self._queue.page(
            Filter(states=(QUEUED,), type=TYPE, records=True), after=None, limit=MAX_WAITING, limit_bytes=1 << 20
        )
        if len(waiting) >= MAX_WAITING:
            raise Overloaded(f"{len(waiting)} renderings are waiting already")

    def _uploaded(self, user: str, asked: Start) -> tuple[Purpose, Object]:
        """What is made of a file that the user has stored; only its id counts of what is asked for.

        Raises InvalidSpec.
        """
        name = str((asked.mash or {}).get("id"))
        files = self._files()
        upload = files.find(user, name)
        path = files.path(user, name)
        if upload is None or path is None or not path.is_file():
            raise InvalidSpec(f"Invalid argument id {name[:80]}", where="id")
        document = products_of(upload, self._options)
        (definition,) = document["definitions"]
        announced = {**definition, "type": "videosequence" if upload.type == "video" else upload.type}
        outputs = [str(each["outputType"]) for each in document["outputs"]]
        purpose = Purpose(id=name, outputs=outputs, kind="upload", definition=announced)
        return purpose, {**document, "upload": upload.type}

    def _composed(self, asked: Start) -> tuple[Purpose, Object]:
        """A mash or a cast, with the sizes that are configured. Raises InvalidMash where it makes no sense."""
        kind: Literal["mash", "cast"] = "cast" if asked.cast is not None else "mash"
        composed = asked.cast if asked.cast is not None else asked.mash
        if composed is None:
            raise InvalidMash("$.mash: required", where="$.mash")
        name = composed.get("id")
        name = name if isinstance(name, str) and ID.fullmatch(name) else str(uuid.uuid4())
        outputs = [self._sized(each) for each in asked.outputs]
        document = {kind: composed, "definitions": asked.definitions, "outputs": outputs}
        read = read_outputs(outputs, preview=self._options.preview, output=self._options.output)
        film = film_of(document, self._options.preview)
        if film.duration <= film.start:
            raise InvalidMash("the mash has no clips", where="$.mash.tracks")
        return Purpose(id=name, outputs=[each.type for each in read], kind=kind), document

    def _sized(self, output: Any) -> Any:
        base = {VIDEO: self._options.output, IMAGE: self._options.preview, SEQUENCE: self._options.preview}
        size = base.get(str(output.get("outputType"))) if isinstance(output, dict) else None
        return output if size is None else {"width": size.width, "height": size.height, **output}

    def _keep(self, user: str, rendering: str, document: Object, place: Path | None) -> None:
        folder = self._folder / user
        with kept_on_disk():
            folder.mkdir(parents=True, exist_ok=True)
            if place is not None:  # results go where it still is when they come
                place.mkdir(parents=True, exist_ok=True)
            part = folder / f"{rendering}.part"
            part.write_bytes(msgspec.json.encode(document))
            part.replace(folder / f"{rendering}.json")

    # Status

    async def _status(self, user: str, request: Object) -> Object:
        asked = wanted(request, Ask)
        unknown = NotFound("rendering", asked.rendering_id[:80])
        if not _RENDERING.fullmatch(asked.rendering_id):
            raise unknown
        body = await self._queue.whole(asked.rendering_id)
        try:
            job = await self._in_thread(partial(msgspec.json.decode, type=Told), body)
            if job.template.src != f"mash:{user}/{asked.id}/{asked.rendering_id}":
                raise unknown
            purpose = msgspec.json.decode(job.purpose, type=Purpose)
            result = msgspec.json.decode(job.result, type=Result) if job.state == FINISHED else None
        except msgspec.ValidationError:  # somebody else has written into the job
            raise InvalidSpec("the rendering has no result", where="renderingId") from None
        totals: Object = {each: {"total": purpose.outputs.count(each), "completed": 0} for each in purpose.outputs}
        if job.state == ERROR:
            return {**totals, "error": str(job.error or "the rendering failed")}
        if result is None:
            return {**totals, **_callback("/rendering/status", {"id": asked.id, "renderingId": asked.rendering_id})}
        for each in totals.values():
            each["completed"] = each["total"]
        return totals | _next(purpose, result, f"{asked.id}/{asked.rendering_id}/")

    # The documents of jobs

    async def library(self, src: str) -> Kept:
        """What ``mash:ID``, ``mash:USER/ID`` or ``mash:USER/ID/RENDERING`` names. Raises NotFound."""
        return await self._in_thread(self._open, src.partition(":")[2])

    def _open(self, path: str) -> Kept:
        *user_only, name = path.split("/")[:2] if path.count("/") == 2 else path.split("/")
        documents, files = self._documents(), self._files()
        user = user_only[0] if user_only else documents.owner(name)
        mine = files.folder(user)
        folders = (str(mine), str(mine.parent / SHARED))
        if path.count("/") < 2:
            return Kept(document=_saved(documents, user, name), folders=folders)
        rendering = path.rpartition("/")[2]
        kept = self._folder / user / f"{rendering}.json"
        if path.count("/") > 2 or not (_RENDERING.fullmatch(rendering) and ID.fullmatch(name)):
            raise NotFound("rendering", path[:200])
        try:
            document = kept.read_bytes()
        except FileNotFoundError:
            raise NotFound("rendering", path[:200]) from None
        return Kept(document=document, folders=folders, results=str(mine / name / rendering))

    def made(self, job: str, output: str) -> Path | None:
        """The file that the rendering which this job is for has made, if `output` names one; None otherwise.

        Clients may write into a job what they like: all that counts of it are the names in the path, and that the
        server keeps the request of a rendering of that user under the job's own name. Worker thread. Raises Overloaded.
        """
        parts = PurePath(output).parts[-4:]
        if len(parts) < 4 or parts[2] != job:
            return None
        user, name, rendering, file = parts
        try:
            results = self._open(f"{user}/{name}/{rendering}").results
        except (NotFound, InvalidSpec):  # there is no such rendering, or user
            return None
        return None if results is None else file_in([Path(results)], file)

    async def _in_thread(self, call: Callable[..., T], *arguments: Any) -> T:
        return await in_thread(call, *arguments, limiter=self._disk)


def _forget(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as err:
        log.warning("%s cannot be removed: %s", path, reason_of(err))


def _callback(path: str, body: Mapping[str, Any]) -> Object:
    return {"apiCallback": {"endpoint": {"prefix": path}, "request": {"body": body}}}


def _next(purpose: Purpose, result: Result, place: str) -> Object:
    """What the client is to do when everything is there, below `place`; where nothing is, the last one stays."""
    if purpose.kind == "upload":
        definition = definition_of(purpose.definition or {}, result, place)
        return _callback("/data/definition/put", {"definition": definition})
    made = next((each for each in result.outputs if not each.warning), None)
    rendered = {"id": purpose.id} | ({"rendering": place + made.file} if made else {})
    return _callback(f"/data/{purpose.kind}/put", {purpose.kind: rendered})


def _saved(documents: Documents, user: str, name: str) -> bytes:
    """A mash, or else a cast. Raises NotFound."""
    found: Found | None = None
    kind: Literal["mash", "cast"] = "mash"
    try:
        found = documents.get(kind, user, name)
    except NotFound:
        kind = "cast"
        found = documents.get(kind, user, name)
    return msgspec.json.encode({kind: found.text, "definitions": found.needed})


def definition_of(announced: Object, result: Result, place: str) -> Object:
    """What the client needs to know of an upload: where its products are, below `place`, and what is in it."""
    made = {
        each.file.partition(".")[0] if each.file else each.type: each for each in result.outputs if not each.warning
    }
    found: Object = dict(announced)
    kind = announced.get("type")
    if result.width is not None and kind != "audio":
        found["sourceSize"] = {"width": result.width, "height": result.height}
    shown = made.get(SEQUENCE if kind == "videosequence" else IMAGE)
    if shown is not None:
        found |= {"previewSize": {"width": shown.width, "height": shown.height}, "url": place + shown.file}
    if "icon" in made:
        found["icon"] = place + made["icon"].file
    if kind == "image":
        return found
    found["duration"] = result.duration
    if kind == "videosequence":
        found["fps"] = SEQUENCE_RATE
        if (result.duration or 0) * SEQUENCE_RATE < 2:
            found["padding"] = 1  # the client would count the minus
    if "audio" in made:
        found |= {"audio": True, "url" if kind == "audio" else "audioUrl": place + made["audio"].file}
    return found

"""A job's ``actions``: the modules of nexrender that everybody uses, done here.

It decides what each module does and which of its parameters have a meaning, before anything is rendered; it refuses to
know when the phases of a job come. A module that is not here is an error, not a package to be loaded.

``@nexrender/action-encode`` renders once more instead of encoding what is encoded already: its preset and parameters
become options of the render. ``action-copy`` and ``action-upload`` read what was rendered and nothing else.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
import trio

from engine.errors import EngineError, InvalidJob
from engine.fetch import Fetcher
from engine.jobdocument import output_folder
from engine.sinks.partial import Partial, copy, error_of, sync_names
from engine.sinks.pictures import IMAGE_CODECS, is_numbered
from engine.template import Order, file_name, is_file_name, item
from engine.threads import in_thread
from engine.urls import shown

log = logging.getLogger(__name__)

PREFIX: Final = "@nexrender/action-"
PHASES: Final = ("predownload", "postdownload", "prerender", "postrender")
MAX_ACTIONS: Final = 32
RESULT: Final = "result"  # what a film is called that no action encodes
_ANY_PHASE: Final = ("webhook", "cache")  # our own cache is always there
_TAKING: Final = ("copy", "upload")  # a film: the one that they name, or the result
_MODULES: Final = ("encode", *_TAKING, *_ANY_PHASE)
_PRESETS: Final[Mapping[str, Mapping[str, str]]] = {
    "mp4": {"--fps": "25", "--audio-rate": "44100", "--audio-bit-rate": "128000"},
    "webm": {"--bit-rate": "614400", "--audio-rate": "48000", "--audio-bit-rate": "128000"},
    "mp3": {"--audio-rate": "44100", "--audio-bit-rate": "128000"},
    "m4a": {"--audio-rate": "44100", "--audio-bit-rate": "64000"},
}
_PARAMETERS: Final = {  # of ffmpeg → option of the render command
    "-r": "--fps",
    "-s": "--scale",
    "-t": "--limit",
    "-ar": "--audio-rate",
    "-ac": "--channels",
    "-preset": "--preset",
    "-crf": "--quality",
    "-g": "--gop",
    "-qmin": "--qp-min",
    "-qmax": "--qp-max",
    "-profile:v": "--profile",
    **dict.fromkeys(("-b", "-b:v", "-vb"), "--bit-rate"),
    **dict.fromkeys(("-ab", "-b:a"), "--audio-bit-rate"),
    "-maxrate": "--max-bit-rate",
}
_IMPLIED: Final = {  # what is so anyway
    "-y": None,
    "-movflags": None,
    "-aspect": None,
    "-pix_fmt": ("yuv420p",),
    "-f": ("mp4", "mov", "webm", "matroska", "mp3", "ipod"),
    **dict.fromkeys(("-vcodec", "-c:v", "-codec:v"), ("libx264", "h264", "libvpx", "libvpx-vp9", "vp9")),
    **dict.fromkeys(("-acodec", "-c:a", "-codec:a"), ("aac", "libmp3lame", "mp3", "libopus", "opus", "libvorbis")),
}
_RATES: Final = {"--bit-rate", "--audio-bit-rate", "--max-bit-rate"}
_EXCLUDED: Final = {"--quality": {"--bit-rate", "--max-bit-rate"}, "--bit-rate": {"--quality"}}  # what takes what away


class Film(msgspec.Struct, frozen=True):
    """Something to render: the name of the file, and options of the render command.

    parameters  option → the parameter of the action that it comes from, of those that do.
    """

    name: str
    options: dict[str, str]
    parameters: dict[str, str] = {}


class Action(msgspec.Struct, frozen=True):
    """What is to be done: the module without what all begin with, and its parameters. `film` is what it renders."""

    module: str
    given: dict[str, Any]
    film: Film | None = None


class Actions:
    """The actions of one job.

    job       the document; its `output` and `state` are for webhooks, and kept up by whoever runs the job.
    folder    where the films are.
    writable  folders that copies may be put in besides; None: anywhere.
    Raises    InvalidJob: an unknown module, parameters that have no meaning, a place that may not be written to.
    """

    def __init__(
        self,
        job: dict[str, Any],
        order: Order,
        *,
        folder: Path,
        fetcher: Fetcher,
        writable: Sequence[Path] | None,
    ) -> None:
        self._job = job
        self._folder = folder
        self._fetcher = fetcher
        self._writable = writable
        self._disk = trio.CapacityLimiter(1)
        self._phases = {phase: self._read(phase, order) for phase in PHASES}

    def films(self, order: Order) -> list[Film]:
        """What to render, in this order; the first is the job's output, as it is for nexrender: the result.

        Without an action that takes or names the result only what is encoded is rendered, and the last of it is first.
        """
        postrender = self._phases["postrender"]
        films = [each.film for each in postrender if each.film is not None]
        names = {film.name for film in films}
        if len(names) < len(films):
            raise InvalidJob("two outputs of the job have the same name", where="$.actions.postrender")
        result = Film(f"{RESULT}.{order.extension}", order.options)
        taken = {_input_name(each.given) or result.name for each in postrender if each.module in _TAKING}
        if not films or any(PurePath(name).stem == RESULT for name in taken - names):
            return [result, *films]
        output = next((film for film in films if film.name == result.name), films[-1])
        return [output, *(film for film in films if film is not output)]

    def check_inputs(self, films: Sequence[Film]) -> None:
        """Raises InvalidJob: an action's input is neither one of these films nor a copy made before."""
        there = {film.name for film in films}
        for action in self._phases["postrender"]:
            name = _input_name(action.given)
            if action.film is None and name and name not in there:
                raise InvalidJob(f'input "{name}" is not an output of this job', where="$.actions.postrender")
            target = self._place(action, self._folder / (name or films[0].name))
            if target is not None and target.parent == self._folder.resolve():
                there.add(target.name)

    def check_several(self, *, numbered: bool) -> None:
        """Raises InvalidJob: an action that needs one film, where the document says itself what is made.

        numbered  the job's output is no file but a sequence of images.
        """
        for action in self._phases["postrender"]:
            if action.film is not None:
                sentence = "nothing can be encoded: the document or its composition says itself what is made"
            elif numbered and action.module in _TAKING and not _input_name(action.given):
                sentence = f"action-{action.module} needs an input: the output of this job is many images"
            else:
                continue
            raise InvalidJob(sentence, where="$.actions.postrender")

    async def run(self, phase: str, output: Path | None = None) -> None:
        """Does what there is to do in this phase; `output` is the job's, if it has one yet. Raises SinkError."""
        for action in self._phases[phase]:
            if action.film is not None:
                if _has_whole_path(action.given):
                    encoded = self._folder / action.film.name
                    await self._copy(encoded, self._target(action.given["output"], encoded.name))
            elif action.module == "webhook":
                await self._tell(action.given)
            elif output is not None and action.module != "cache":
                found = self._input(action.given, output)
                target = self._place(action, found)
                if target is not None:
                    await self._copy(found, target)
                else:
                    await self._upload(found, action.given)

    # Reading

    def _read(self, phase: str, order: Order) -> list[Action]:
        actions = self._job.get("actions")
        listed = actions.get(phase) if isinstance(actions, dict) else None
        listed = listed if isinstance(listed, list) else [listed] if listed else []
        if len(listed) > MAX_ACTIONS:
            raise InvalidJob(f"actions.{phase} has {len(listed)} items, more than {MAX_ACTIONS}", where="$.actions")
        return [self._action(each, phase, f"actions.{phase}[{n}]", order) for n, each in enumerate(listed)]

    def _action(self, given: object, phase: str, where: str, order: Order) -> Action:
        module = str(given.get("module")) if isinstance(given, dict) else ""
        name = module.removeprefix(PREFIX)
        if not isinstance(given, dict) or not module.startswith(PREFIX) or name not in _MODULES:
            known = ", ".join(f"{PREFIX}{each}" for each in _MODULES)
            raise InvalidJob(f"{where}.module {module[:80]!r} is not one of {known}", where=f"$.{where}.module")
        if name not in _ANY_PHASE and phase != "postrender":
            raise InvalidJob(f"{where}: {module} is only for postrender", where=f"$.{where}")
        if name == "encode":
            film = _film(given, where, order)
            if _has_whole_path(given):
                self._check_place(given["output"], f"{where}.output")
            return Action(name, given, film)
        if name == "copy":
            self._check_place(given.get("output"), f"{where}.output")
        elif name == "upload":
            self._check_upload(given, where)
        elif name == "webhook" and not isinstance(given.get("url"), str):
            raise InvalidJob(f"{where}.url is missing", where=f"$.{where}.url")
        return Action(name, given)

    def _check_upload(self, given: Mapping[str, Any], where: str) -> None:
        provider, params = given.get("provider"), given.get("params") or {}
        if provider not in ("file", "http", "https") or not isinstance(params, dict):
            sentence = f"{where}.provider {str(provider)[:80]!r} is not one of file, http"
            raise InvalidJob(sentence, where=f"$.{where}.provider")
        if provider == "file":
            self._check_place(params.get("path"), f"{where}.params.path")
        elif not _is_web(str(params.get("url"))):
            raise InvalidJob(f"{where}.params.url is not an http: or https: URL", where=f"$.{where}.params.url")

    def _check_place(self, place: object, where: str) -> None:
        if not isinstance(place, str) or not place:
            raise InvalidJob(f"{where} is missing", where=f"$.{where}")
        self._target(place, "x", where)

    # Doing

    def _target(self, place: str, name: str, where: str = "output") -> Path:
        """Where a copy goes; links are followed before it is judged."""
        is_url = re.match("file:|[a-zA-Z0-9+.-]+://", place)
        try:
            path = self._fetcher.path_of(place) if is_url else self._folder / place
            path = (path / name if place.endswith("/") or path.is_dir() else path).resolve()
        except InvalidJob as err:
            sentence = f'{where}: "{shown(place)}" is neither a path nor a file: URL of this machine'
            raise InvalidJob(sentence, where=f"$.{where}") from err
        except (OSError, ValueError, RuntimeError) as err:  # too long, with a NUL, or links in a ring
            raise InvalidJob(f'{where}: "{place[:200]}" is no path', where=f"$.{where}") from err
        folder = self._folder.resolve()
        if path.is_relative_to(folder) and not all(map(is_file_name, path.relative_to(folder).parts)):
            raise InvalidJob(f'{where}: "{place[:200]}" is no path of an output', where=f"$.{where}")
        allowed = None if self._writable is None else (self._folder, *self._writable)
        if allowed is not None and not any(path.is_relative_to(each.resolve()) for each in allowed):
            raise InvalidJob(f'{where}: "{place[:200]}" may not be written to', where=f"$.{where}")
        return path

    def _input(self, given: Mapping[str, Any], output: Path) -> Path:
        name = _input_name(given)
        found = self._folder / name if name else output
        if not found.is_file():
            raise InvalidJob(f'input "{name}" is not an output of this job')
        return found

    def _place(self, action: Action, found: Path) -> Path | None:
        """Where an action copies a file to; None: it copies none. Raises InvalidJob."""
        given = action.given
        if action.module == "copy":
            called = output_folder(str(self._job["uid"])) + found.suffix if given.get("useJobId") else found.name
            return self._target(given["output"], called)
        is_file = action.module == "upload" and given["provider"] == "file"
        return self._target(given["params"]["path"], found.name) if is_file else None

    async def _copy(self, found: Path, target: Path) -> None:
        if target != found.resolve():
            await in_thread(_copy_file, found, target, limiter=self._disk)

    async def _upload(self, found: Path, given: Mapping[str, Any]) -> None:
        params = given.get("params") or {}
        url, headers = (_filled(params.get(key), self._job) for key in ("url", "headers"))
        method = str(params.get("method") or "PUT").upper()
        await self._fetcher.send(method, str(url), headers=_headers(headers), body=found)

    async def _tell(self, given: Mapping[str, Any]) -> None:
        """As nexrender: who does not listen does not stop the job."""
        url, headers, told, body = (_filled(given.get(key), self._job) for key in ("url", "headers", "json", "body"))
        sent = {"Content-Type": "application/json"} if told else {}
        text = msgspec.json.encode(told) if told else str(body or "").encode()
        method = str(given.get("method") or "POST").upper()
        try:
            await self._fetcher.send(method, str(url), headers=sent | _headers(headers), body=text)
        except EngineError as err:
            log.warning("job %s: webhook %s: %s", self._job.get("uid"), shown(str(url)), err)


def _input_name(given: Mapping[str, Any]) -> str:
    """The file that an action names; nothing where it takes the job's output."""
    return file_name(str(given.get("input") or ""), "")


def _has_whole_path(given: Mapping[str, Any]) -> bool:
    """Whether what an action encodes is to be copied, too."""
    return PurePath(str(given.get("output") or "")).is_absolute()


def _is_web(url: str) -> bool:
    try:
        return urlsplit(url).scheme in ("http", "https")
    except ValueError:
        return False


def _film(given: Mapping[str, Any], where: str, order: Order) -> Film:
    if given.get("input"):
        raise InvalidJob(f"{where}.input: only what is rendered can be encoded", where=f"$.{where}.input")
    preset, params = given.get("preset"), given.get("params") or {}
    if preset not in (None, "", *_PRESETS):
        sentence = f"{where}.preset {str(preset)[:80]!r} is not one of {', '.join(_PRESETS)}"
        raise InvalidJob(sentence, where=f"$.{where}.preset")
    if not isinstance(params, dict):
        raise InvalidJob(f"{where}.params is not an object", where=f"$.{where}.params")
    extension = str(preset or order.extension)
    name = file_name(str(given.get("output") or ""), f"encoded.{extension}")
    name = name if PurePath(name).suffix else file_name(f"{name}.{extension}", "")
    if is_numbered(name) and PurePath(name).suffix.lower() in IMAGE_CODECS:
        raise InvalidJob(f"{where}.output: many images are not supported", where=f"$.{where}.output")
    options = over(_PRESETS.get(str(preset), {}), order.options)
    parameters = {_PARAMETERS[key]: key for key in params if key in _PARAMETERS}
    return Film(name, over(options, _options(params, f"{where}.params")), parameters)


def _options(params: Mapping[str, Any], where: str) -> dict[str, str]:
    """Parameters of ffmpeg as options of the render command."""
    options: dict[str, str] = {}
    for key, value in params.items():
        option = _PARAMETERS.get(key)
        if option is not None:
            options[option] = _number(value) if option in _RATES else str(value)
        elif key not in _IMPLIED or str(value) not in (_IMPLIED[key] or (str(value),)):
            raise InvalidJob(f"{where} {key[:40]} {value!s:.40} is not supported", where=f"$.{where}")
    if "--quality" in options and options.get("--bit-rate") == "0":  # no rate: so VP9 is told to go by quality alone
        del options["--bit-rate"]
    return options


def over(below: Mapping[str, str], options: Mapping[str, str]) -> dict[str, str]:
    """Options over those that hold where they say nothing: a quality takes a bit rate's place, and the other way."""
    excluded = {each for option in options for each in _EXCLUDED.get(option, ())}
    return {option: value for option, value in below.items() if option not in excluded} | dict(options)


def _number(value: object) -> str:
    """A rate as ffmpeg takes it: 128k, 2.5M."""
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,6})?)([kKM]?)", str(value))
    return str(round(float(found[1]) * {"": 1, "k": 1e3, "K": 1e3, "M": 1e6}[found[2]])) if found else str(value)


def _filled(value: Any, job: Mapping[str, Any]) -> Any:
    """With what stands in the job for each ``{job.name}``."""
    if isinstance(value, str):
        return re.sub(r"\{job\.([^}]+)\}", lambda found: _field(job, found[1]), value)
    if isinstance(value, list):
        return [_filled(each, job) for each in value]
    if isinstance(value, dict):
        return {key: _filled(each, job) for key, each in value.items()}
    return value


def _field(job: Any, path: str) -> str:
    for key in path.split("."):
        job = job.get(key) if isinstance(job, dict) else item(job, key)
    return job if isinstance(job, str) else "" if job is None else msgspec.json.encode(job).decode()


def _headers(headers: Any) -> dict[str, str]:
    given = headers if isinstance(headers, dict) else {}
    return {str(key): str(value) for key, value in given.items()}


def _copy_file(found: Path, target: Path) -> None:
    """A copy that appears when it is whole, and outlives a power cut with the folders made for it. Raises SinkError."""
    try:
        made = [folder for folder in target.parents if not folder.exists()]
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise error_of(str(target), err) from err
    part = Partial(str(target))
    try:
        copy(found, part.temporary)
        part.keep()
        for folder in (target, *made):
            sync_names(folder.parent)
    except OSError as err:
        raise part.error(err) from err
    finally:
        part.remove()

"""Movie Masher's requests for the description of the API: what each is for, and its members.

It decides words only; it refuses to know what answers.
"""

from __future__ import annotations

from typing import Any, Final

from api.wire import FormBody, Route

_SAYS: Final = {
    "/api/callbacks": "Where to send requests of a kind: {id}",
    "/api/servers": "What servers there are, where media are, what may be imported",
    "/data/mash/default": "The newest mash that is in no cast, and its definitions",
    "/data/mash/get": "A mash and its definitions: {id}",
    "/data/mash/put": "Keep a mash, or lay members over it: {mash, definitionIds?}",
    "/data/mash/retrieve": "The mashes that are in no cast: {partial?}",
    "/data/mash/delete": "Remove a mash that is in no cast: {id}",
    "/data/cast/default": "The newest cast with its mashes and their definitions",
    "/data/cast/get": "A cast with its mashes and their definitions: {id}",
    "/data/cast/put": "Keep a cast and the mashes in it: {cast, definitionIds?}",
    "/data/cast/retrieve": "The casts: {partial?}",
    "/data/cast/delete": "Remove a cast; its mashes stay: {id}",
    "/data/definition/get": "A definition: {id}",
    "/data/definition/put": "Keep a definition, or lay members over it: {definition}",
    "/data/definition/retrieve": "The definitions of some types: {types, partial?}",
    "/data/definition/delete": "Remove a definition that no mash needs, and its files: {id}",
    "/rendering/upload": "Announce a file: {name, type, size}",
    "/rendering/start": "Render: {mash or cast, definitions, outputs}",
    "/rendering/status": "How far that is: {id, renderingId}",
    "/streaming/start": "Begin a live stream: {width?, height?, videoRate?, format?}",
    "/streaming/status": "Where it is played, when it can be: {id}",
    "/streaming/cut": "Show something else on it: {id, mashObjects, definitionObjects}",
    "/streaming/preload": "Fetch what will be shown: {id, files}",
    "/streaming/list": "The live streams of the user",
    "/streaming/delete": "End a live stream: {id}",
}
ROUTES: Final = [
    *(Route("POST", path, says, dict[str, Any], dict[str, Any], needs_body=False) for path, says in _SAYS.items()),
    Route("POST", "/file/store", "A file that was announced", FormBody(("id",)), dict[str, Any]),
    Route("GET", "/hls/{id}/{name}.m3u8", "A live stream's playlist", None, "application/vnd.apple.mpegurl"),
    Route("GET", "/media/{user}/{id}/{file}", "A user's media; ranges", None, "*/*"),
]

"""Jobs as clients send them, for the tests of their rules and of what their documents say."""

import json

import msgspec

from engine.jobdocument import read
from engine.jobs import create

NOW = 1_700_000_000_000  # 2023-11-14T22:13:20Z
TEMPLATE = {"src": "file:///a.aepx", "composition": "main"}
BODY = {"template": TEMPLATE}


def document(**fields):
    return read(json.dumps(fields).encode())


def made(**fields):
    job, _ = create(document(**{**BODY, **fields}), uid="u1", creator="10.0.0.1", now=NOW)
    return job


def values(mapping):
    return {key: msgspec.json.decode(text) for key, text in mapping.items()}

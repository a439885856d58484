"""The exception tree is the one its docstring draws, and every class says whose fault it is and if to try again."""

import inspect

import pytest

from engine import errors
from engine.errors import EngineError, InvalidTree, NotFound

TREE = {  # class: (parent, fault, retry)
    "EngineError": ("Exception", "us", False),
    "Invalid": ("EngineError", "caller", False),
    "InvalidTree": ("Invalid", "caller", False),
    "InvalidMash": ("Invalid", "caller", False),
    "InvalidSpec": ("Invalid", "caller", False),
    "InvalidJob": ("Invalid", "caller", False),
    "NotFound": ("EngineError", "caller", False),
    "Conflict": ("EngineError", "caller", False),
    "AlreadyExists": ("Conflict", "caller", False),
    "InUse": ("Conflict", "caller", False),
    "IllegalTransition": ("Conflict", "caller", False),
    "SourceError": ("EngineError", "remote", False),
    "SourceUnavailable": ("SourceError", "remote", True),
    "SourceMalformed": ("SourceError", "remote", False),
    "SourceUnsupported": ("SourceError", "remote", False),
    "SinkError": ("EngineError", "remote", False),
    "SinkUnavailable": ("SinkError", "remote", True),
    "SinkRejected": ("SinkError", "remote", False),
    "ProtocolError": ("EngineError", "us", False),
    "LocalProtocolError": ("ProtocolError", "us", False),
    "RemoteProtocolError": ("ProtocolError", "remote", False),
    "Overloaded": ("EngineError", "us", True),
    "Exhausted": ("Overloaded", "us", True),
    "ActorGone": ("EngineError", "us", True),
}
CLASSES = {name: each for name, each in vars(errors).items() if inspect.isclass(each) and issubclass(each, Exception)}


def snake(name: str) -> str:
    """`SourceUnavailable` → `source_unavailable`."""
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")


def test_tree_has_no_other_class():
    assert CLASSES.keys() == TREE.keys()


@pytest.mark.parametrize(("name", "row"), TREE.items())
def test_class_has_its_parent_fault_and_retry(name, row):
    each = CLASSES[name]
    assert (each.__base__.__name__, each.fault, each.retry) == row


@pytest.mark.parametrize("name", TREE)
def test_code_is_the_name_of_its_class(name):
    assert CLASSES[name].code == snake(name)


@pytest.mark.parametrize("name", TREE)
def test_docstring_draws_every_class(name):
    assert name in (errors.__doc__ or "")


def test_message_and_place_are_kept():
    error = InvalidTree("$.x: wrong", where="$.x")
    assert (str(error), error.where) == ("$.x: wrong", "$.x")
    assert EngineError("x").where == ""


def test_not_found_names_what_is_missing():
    error = NotFound("stream", "live/cam1")
    assert (str(error), error.where) == ('no stream "live/cam1"', "live/cam1")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (FileNotFoundError(2, "No such file or directory"), "no such file or directory"),
        (ValueError("Embedded null byte"), "embedded null byte"),
        (ValueError("URL without a host"), "URL without a host"),
        (ValueError(), "ValueError"),
        (InvalidTree("$.x: wrong"), "$.x: wrong"),
    ],
)
def test_the_reason_of_an_error_ends_a_sentence(error, reason):
    assert errors.reason_of(error) == reason

"""Every error class of the engine has an answer in every dialect, and the answers are the documented ones."""

import inspect

import pytest

from api.errors import ANSWERS, Answer, status_of
from engine import errors
from engine.errors import EngineError, InvalidTree, NotFound

CLASSES = [each for each in vars(errors).values() if inspect.isclass(each) and issubclass(each, EngineError)]
STATUS = {  # class: status
    "EngineError": 500,
    "Invalid": 400, "InvalidTree": 400, "InvalidMash": 400, "InvalidSpec": 400, "InvalidJob": 400,
    "NotFound": 404,
    "Conflict": 409, "AlreadyExists": 409, "InUse": 409, "IllegalTransition": 409,
    "SourceError": 502, "SourceUnavailable": 502, "SourceMalformed": 502, "SourceUnsupported": 502,
    "SinkError": 502, "SinkUnavailable": 502, "SinkRejected": 502,
    "ProtocolError": 500, "LocalProtocolError": 500, "RemoteProtocolError": 502,
    "Overloaded": 503, "Exhausted": 503, "ActorGone": 503,
}  # fmt: skip


def test_the_table_is_complete():
    assert {each.__name__ for each in CLASSES} == STATUS.keys()


@pytest.mark.parametrize("each", CLASSES, ids=lambda each: each.__name__)
@pytest.mark.parametrize("dialect", Answer._fields)
def test_every_class_has_an_answer_in_every_dialect(each, dialect):
    assert status_of(each, dialect) == (200 if dialect == "moviemasher" else STATUS[each.__name__])


@pytest.mark.parametrize("each", CLASSES, ids=lambda each: each.__name__)
def test_who_is_at_fault_fits_the_status(each):
    expected = {"caller": 4, "remote": 5, "us": 5}[each.fault]
    assert status_of(each) // 100 == status_of(each, "nexrender") // 100 == expected


def test_an_error_has_the_answer_of_its_class():
    assert (status_of(InvalidTree("$.x: wrong")), status_of(NotFound("event", "a"))) == (400, 404)


def test_the_table_cannot_be_changed():
    with pytest.raises(TypeError):
        ANSWERS[EngineError] = Answer(200, 200)

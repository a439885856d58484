"""The three steps of Adobe's authentication."""

import base64
import hashlib

import pytest

from engine.rtmp import auth

NEEDED = "[ AccessManager.Reject ] : [ code=403 need auth; authmod=adobe ] : "
CHALLENGE = (
    "[ AccessManager.Reject ] : [ authmod=adobe ] : ?reason=needauth&user=me&salt=s4lt&challenge=c0de&opaque=0paq"
)
KNOWN = {"user": "me", "password": "secret", "random": "12345678"}


def md5(text):
    return base64.b64encode(hashlib.md5(text.encode()).digest()).decode()


def test_the_first_refusal_is_answered_with_the_user():
    assert auth.query(NEEDED, **KNOWN) == "authmod=adobe&user=me"
    assert auth.query(NEEDED, **(KNOWN | {"user": "a&b"})) == "authmod=adobe&user=a%26b"


def test_the_challenge_is_answered_with_a_hash():
    response = md5(md5("mes4ltsecret") + "0paq12345678")
    query = f"authmod=adobe&user=me&challenge=12345678&response={response}&opaque=0paq"
    assert auth.query(CHALLENGE, **KNOWN) == query


def test_a_challenge_without_opaque_is_answered_to_the_challenge():
    response = md5(md5("mes4ltsecret") + "c0de12345678")
    query = f"authmod=adobe&user=me&challenge=12345678&response={response}"
    assert auth.query(CHALLENGE.partition("&opaque")[0], **KNOWN) == query


@pytest.mark.parametrize(
    "description",
    [
        "",
        "go away",
        "[ code=403 need auth; authmod=llnw ]",
        "[ authmod=adobe ] : ?reason=authfailed&opaque=0paq",
        "[ authmod=adobe ] : ?reason=nosuchuser",
    ],
)
def test_any_other_refusal_has_no_answer(description):
    assert auth.query(description, **KNOWN) is None


def test_without_a_user_there_is_no_answer():
    assert auth.query(NEEDED, user="", password="", random="1") is None

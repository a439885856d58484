"""Who may ask: signatures are good once and for a while, and no server is open to others by mistake."""

import hashlib
import hmac
import socket

import pytest
from werkzeug.exceptions import BadRequest, Forbidden, Unauthorized

from api.auth import Signatures, check_exposure, check_host, is_from_elsewhere, sign
from engine.config import Settings
from engine.errors import InvalidSpec

SECRET = "s3cret"
PARTS = ("create", "show", "live", "program")
NOW = 1_700_000_000_000


class Wall:
    """A clock that is set by hand."""

    def __init__(self):
        self.ms = NOW

    def __call__(self):
        return self.ms / 1000


@pytest.fixture
def wall():
    return Wall()


def refusal(signatures, digest, timestamp=NOW, parts=PARTS):
    with pytest.raises(Unauthorized) as caught:
        signatures.check(parts, timestamp_ms=timestamp, digest=digest)
    assert str(caught.value.www_authenticate[0]).lower().startswith("hmac-sha256")
    return caught.value.description


def test_a_digest_is_the_hmac_of_the_parts_and_the_timestamp():
    message = b"create|show|live|program|1700000000000"
    assert sign(SECRET, PARTS, NOW) == hmac.new(SECRET.encode(), message, hashlib.sha256).hexdigest()


@pytest.mark.parametrize("spelling", [str.lower, str.upper, str.title])
def test_hex_of_any_case_is_right_once(wall, spelling):
    signatures = Signatures(SECRET, wall)
    digest = spelling(sign(SECRET, PARTS, NOW))
    signatures.check(PARTS, timestamp_ms=NOW, digest=digest)
    assert refusal(signatures, digest) == "digest was used before"
    assert refusal(signatures, digest.swapcase()) == "digest was used before"


@pytest.mark.parametrize("skew", [-60_000, -1, 0, 1, 60_000])
def test_a_timestamp_within_60_s_is_taken_and_its_digest_never_again(wall, skew):
    signatures = Signatures(SECRET, wall)
    timestamp = NOW + skew
    digest = sign(SECRET, PARTS, timestamp)
    signatures.check(PARTS, timestamp_ms=timestamp, digest=digest)
    for wall.ms in range(NOW, NOW + 130_000, 10_000):
        assert refusal(signatures, digest, timestamp)


@pytest.mark.parametrize("skew", [-60_001, 60_001, -NOW, 10**14])
def test_a_timestamp_beyond_60_s_is_refused(wall, skew):
    timestamp = NOW + skew
    sentence = refusal(Signatures(SECRET, wall), sign(SECRET, PARTS, timestamp), timestamp)
    assert sentence == f"timestamp {timestamp} is not within 60000 ms of {NOW}"


@pytest.mark.parametrize(
    "digest",
    ["", "0" * 64, sign("other", PARTS, NOW), sign(SECRET, PARTS, NOW + 1), sign(SECRET, PARTS, NOW)[:-1], "é"],
)
def test_a_wrong_digest_is_refused(wall, digest):
    assert refusal(Signatures(SECRET, wall), digest) == "digest is wrong"


@pytest.mark.parametrize("n", range(4))
def test_every_part_is_signed(wall, n):
    parts = tuple("x" if i == n else part for i, part in enumerate(PARTS))
    assert refusal(Signatures(SECRET, wall), sign(SECRET, PARTS, NOW), parts=parts) == "digest is wrong"


def test_a_bar_in_a_name_cannot_move_the_border_between_two_names(wall):
    parts = ("create", "show", "a|b", "c")
    assert sign(SECRET, parts, NOW) == sign(SECRET, ("create", "show", "a", "b|c"), NOW)
    assert refusal(Signatures(SECRET, wall), sign(SECRET, parts, NOW), parts=parts) == "digest is wrong"


@pytest.mark.parametrize(("timestamp", "digest"), [(None, "0" * 64), (NOW, None)])
def test_both_are_required(wall, timestamp, digest):
    assert refusal(Signatures(SECRET, wall), digest, timestamp) == "digest and timestamp are required"


def test_used_digests_are_forgotten_when_they_are_too_old_anyway(wall):
    signatures = Signatures(SECRET, wall)
    for n in range(100):
        wall.ms = NOW + n * 10_000
        signatures.check(PARTS, timestamp_ms=wall.ms, digest=sign(SECRET, PARTS, wall.ms))
    assert len(signatures._used) <= 7


def test_without_a_secret_nothing_is_required(wall):
    assert not Signatures("", wall).required
    assert Signatures(SECRET, wall).required


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback_may_be_open(host):
    check_exposure(Settings(host=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", ""])
def test_other_addresses_need_credentials_or_a_word(host):
    with pytest.raises(InvalidSpec) as caught:
        check_exposure(Settings(host=host))
    assert caught.value.where == "host"
    assert f'"{host}"' in str(caught.value)
    check_exposure(Settings(host=host, insecure=True))
    check_exposure(Settings(host=host, username="u", password="p"))


@pytest.mark.parametrize(("given", "absent"), [({"username": "u"}, "password"), ({"password": "p"}, "username")])
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_half_of_the_credentials_is_refused(given, absent, host):
    with pytest.raises(InvalidSpec) as caught:
        check_exposure(Settings(host=host, insecure=True, **given))
    assert caught.value.where == absent


def test_users_who_are_not_asked_for_a_password_come_from_loopback_only():
    check_exposure(Settings(masher_auth="none"))
    given = {"host": "0.0.0.0", "username": "u", "password": "p", "masher_auth": "none"}
    with pytest.raises(InvalidSpec) as caught:
        check_exposure(Settings(**given))
    assert caught.value.where == "masher_auth"
    check_exposure(Settings(**given, insecure=True))


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:8570",
        "127.0.0.1",
        "192.168.1.5:80",
        "[::1]:8570",
        "[::1]",
        "[::ffff:127.0.0.1]:1",
        "localhost:8570",
        "LOCALHOST",
        "mixer.localhost:8570",
        "mashtun:8570",
        "host.docker.internal:8570",
        "",
        "10.0.0.9:",
        socket.gethostname() + ":8570",
    ],
)
def test_names_of_this_machine_need_no_password(host):
    check_host(Settings(), host)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example:8570",
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example:80",
        "evil.example:x",
        "ai.",
        "evillocalhost.",
        "evil.localhost.example",
        "127.0.0.1:80.evil.example",
        "é.example",
    ],
)
def test_a_name_that_its_owner_may_let_lead_here_needs_a_password(host):
    with pytest.raises(Forbidden) as caught:
        check_host(Settings(), host)
    assert "--username" in caught.value.description
    check_host(Settings(username="u", password="p"), host)
    check_host(Settings(insecure=True), host)


@pytest.mark.parametrize("host", ["..", ".localhost", "a..b:8570", 64 * "x", f"{64 * 'x'}.lan:80", 9000 * "a." + "."])
def test_a_name_that_no_machine_can_have_is_a_bad_request(host):
    for settings in (Settings(), Settings(insecure=True), Settings(username="u", password="p")):
        with pytest.raises(BadRequest):
            check_host(settings, host)


@pytest.mark.parametrize(
    ("host", "origin", "is_ours"),
    [
        ("mix.lan:80", "http://mix.lan", True),  # nginx's $host:$server_port
        ("mix.lan:443", "https://mix.lan", True),
        ("Mix.lan", "http://mix.LAN:80", True),
        ("[::1]:80", "http://[::1]", True),
        ("mix.lan:443", "http://mix.lan", False),
        ("mix.lan:80", "https://mix.lan", False),
        ("mix.lan:8080", "http://mix.lan", False),
        ("mix.lan:80", "http://mix.lan:8080", False),
        ("mix.lan:80", "http://evil.example", False),
        ("mix.lan:80", "null", False),
    ],
)
def test_a_page_is_ours_whether_or_not_the_usual_port_is_named(host, origin, is_ours):
    assert is_from_elsewhere({"host": host, "origin": origin}) is not is_ours

"""Of a URL nobody is told a password or a query, however it is written."""

import pytest

from engine.urls import scheme_of, shown, shown_url, without_query


def test_urls_are_shown_without_secrets():
    assert shown("https://me:secret@[x/y?key=secret") == "https://***"
    for password in ("se/cret", "se?cret", "se#cret", "12/cret", "/cret", "p@ss/cret", "12#cret", "12?cret"):
        assert shown(f"https://me:{password}@host/x?key=secret") == "https://***"
    assert shown("//me:se/cret@host/x") == "//***"
    assert shown("https:/\t/me:se/cret@host/x") == "https://***"
    assert shown("https://host/@me/x") == "https://host/@me/x"
    assert shown("https://me:secret@host/x?key=secret") == "https://host/x"
    assert shown("data:" + "x" * 99).endswith("…")


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("rtmp://u:secret@host:1936/app/name?key=secret", "rtmp://u:***@host:1936/app/name?***"),
        ("rtsp://host/cam", "rtsp://host/cam"),
        ("http://token@host/x.ts", "http://token@host/x.ts"),
        ("/films/a.mp4", "/films/a.mp4"),
        ("http://[::1", "http://***"),
        ("http://u:sec/ret@host/x.ts", "http://***"),
        ("http://u:12/34secret@host/x.ts", "http://***"),
    ],
)
def test_passwords_are_not_shown(url, told):
    assert shown_url(url) == told


@pytest.mark.parametrize(
    ("place", "bare"),
    [
        ("https://host/a.mp4?key=#1", "https://host/a.mp4"),
        ("S3://bucket/a.mp4#?", "S3://bucket/a.mp4"),
        ("take #1?.mp4", "take #1?.mp4"),
        ("File:///a/take #1?.mp4", "File:///a/take #1?.mp4"),
    ],
)
def test_only_what_is_not_of_this_machine_has_a_query(place, bare):
    assert without_query(place) == bare


@pytest.mark.parametrize(
    ("place", "scheme"),
    [
        ("HTTPS://host/a.mp4", "HTTPS"),
        ("pattern:bars", "pattern"),
        ("take 12:30.mp4", ""),
        ("films/12:30.mp4", ""),
        ("12:30.mp4", ""),
        ("C:\\a.mp4", ""),
        ("a.mp4", ""),
    ],
)
def test_a_name_with_a_colon_is_no_url(place, scheme):
    assert scheme_of(place) == scheme

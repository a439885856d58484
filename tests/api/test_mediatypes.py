"""Files have the types that HTTP knows them by."""

import mimetypes
from pathlib import Path

import pytest

from api.mediatypes import media_type


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("film.mp4", "video/mp4"),
        ("film.M4V", "video/mp4"),
        ("sound.m4a", "audio/mp4"),
        ("picture.webp", "image/webp"),
        ("words.txt", "text/plain"),
        ("project.aep", "application/octet-stream"),
        ("film", "application/octet-stream"),
    ],
)
def test_the_end_of_a_name_says_what_a_file_is(name, kind):
    assert media_type(Path(name)) == kind


def test_what_else_the_machine_knows_does_not_matter(monkeypatch):
    monkeypatch.setitem(mimetypes.types_map, ".aep", "application/vnd.adobe.aftereffects.project")
    assert mimetypes.guess_type("project.aep")[0] is not None
    assert media_type(Path("project.aep")) == "application/octet-stream"

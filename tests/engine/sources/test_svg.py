"""SVG: drawn at its own size with what can be seen through, with the engine's fonts, and never with another file."""

import base64
import gzip
import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pytest

from engine.config import Settings
from engine.errors import SourceMalformed, SourceUnsupported
from engine.sources import open_source, svgchild
from engine.sources.fonts import Fonts
from engine.sources.still import StillSource, is_still, load_still
from engine.sources.svg import MAX_BYTES, MAX_MEMORY, is_svg
from engine.spec import MAX_SIDE, AudioFormat
from tests.media import COLOUR, colour_yuv

NAMESPACES = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
HEX = "#{:02x}{:02x}{:02x}".format(*COLOUR)


def svg(inside="", attributes='width="48" height="32"', before=""):
    return f"{before}<svg {NAMESPACES} {attributes}>{inside}</svg>"


def load(folder, text, name="x.svg"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_still("logo", str(path))


def png(folder):
    """A file that anybody could refer to, and its bytes."""
    frame = av.VideoFrame.from_ndarray(np.full((4, 4, 3), 255, np.uint8), "rgb24")
    encoder = av.CodecContext.create("png", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = 4, 4, "rgb24", Fraction(1)
    path = folder / "white.png"
    path.write_bytes(b"".join(bytes(each) for each in [*encoder.encode(frame), *encoder.encode(None)]))
    return path, base64.b64encode(path.read_bytes()).decode()


def test_shape_has_its_colour_and_what_is_around_it_can_be_seen_through(tmp_path):
    half = f'<rect width="24" height="32" fill="{HEX}"/><rect x="24" width="8" height="32" fill-opacity="0.5"/>'
    frame = load(tmp_path, svg(half))
    assert (frame.width, frame.height) == (48, 32)
    levels = [plane[:, : plane.shape[1] // 3].mean() for plane in (frame.y, frame.u, frame.v)]
    assert levels == pytest.approx(colour_yuv(COLOUR, "bt709"), abs=2)
    assert (frame.a[:, :24].min(), frame.a[:, 32:].max()) == (255, 0)
    assert set(np.unique(frame.a[:, 24:32])) <= {127, 128, 129}
    assert abs(int(frame.y[16, 33]) - int(frame.y[16, 31])) <= 2  # hidden: the colour of its neighbours


@pytest.mark.parametrize(
    ("attributes", "size"),
    [
        ('width="40" height="20" viewBox="0 0 7 9"', (40, 20)),
        ('viewBox="10 10 30 20"', (30, 20)),
        ('viewBox="10,10,30,20" width="100%"', (30, 20)),
        ('viewBox="0 0 30 20" width="60"', (60, 40)),
        ('viewBox="0 0 30 20" height="60px"', (90, 60)),
        ('width="1in" height="12pt"', (96, 16)),
    ],
)
def test_size_is_its_own(tmp_path, attributes, size):
    frame = load(tmp_path, svg("<rect width='1' height='1'/>", attributes))
    assert (frame.width, frame.height) == size
    pairs = dict(each.split("=") for each in attributes.replace('" ', '"\n').splitlines())
    assert svgchild.size_of({key: value.strip('"') for key, value in pairs.items()}) == pytest.approx(size)


def test_without_a_size_it_is_as_large_as_what_is_drawn(tmp_path):
    frame = load(tmp_path, svg("<rect width='14' height='6'/>", ""))
    assert (frame.width, frame.height) == (14, 6)


@pytest.mark.parametrize("family", ["Lobster", "nobody has this one", "sans-serif", "monospace"])
def test_text_is_written_with_the_fonts_of_the_engine(tmp_path, family):
    text = '<text x="4" y="28" font-size="30" font-family="{}">Ab</text>'
    frame = load(tmp_path, svg(text.format(family)))
    default = load(tmp_path, svg(text.format("League Spartan")))
    assert 100 < np.count_nonzero(frame.a == 255) < 700
    assert np.array_equal(frame.a, default.a) == (family != "Lobster")


@pytest.mark.parametrize(
    ("character", "decorative"), [("Ж", ["Lobster", "Russo One"]), ("→", ["Bungee"]), ("Ω", ["Bungee", "Lobster"])]
)
def test_letter_that_the_default_font_lacks_makes_no_text_decorative(tmp_path, character, decorative):
    if character != "Ж" and len(Fonts().likeliest()) == 1:
        pytest.skip("no plain font here has it")
    text = '<text x="4" y="28" font-size="20" font-family="{}">A{}</text>'
    made = [load(tmp_path, svg(text.format(family, character))).a for family in ("sans-serif", *decorative)]
    assert not any(np.array_equal(made[0], each) for each in made[1:])


def test_it_may_refer_to_what_is_in_it(tmp_path):
    _, data = png(tmp_path)
    inside = (
        '<defs><rect id="r" width="24" height="32"/></defs><use xlink:href="#r"/><use href="#r" x="200"/>'
        f'<image x="24" width="24" height="32" preserveAspectRatio="none" href="data:image/png;base64,{data}"/>'
    )
    frame = load(tmp_path, svg(inside))
    assert frame.a is None or frame.a.min() == 255
    assert (frame.y[16, 5], frame.y[16, 40]) == (16, 235)


@pytest.mark.parametrize(
    "href",
    [
        "{}",
        "file://{}",
        "white.png",
        " #r",
        "",
        "http://127.0.0.1/white.png",
        "//127.0.0.1/white.png",
        "&#x2f;{}",
        "DATA:image/png,",
    ],
)
@pytest.mark.parametrize("attribute", ["href", "xlink:href"])
def test_it_may_not_refer_to_anything_else(tmp_path, attribute, href):
    path, _ = png(tmp_path)
    inside = f'<g><image width="48" height="32" {attribute}="{href.format(path)}"/></g>'
    with pytest.raises(SourceUnsupported, match="an SVG may only refer to what is in it, and not to"):
        load(tmp_path, svg(inside))


def test_other_prefixes_and_elements_may_not_refer_to_files_either(tmp_path):
    path, _ = png(tmp_path)
    for inside in (
        f'<image xmlns:y="http://www.w3.org/1999/xlink" y:href="{path}"/>',
        f'<filter id="f"><feImage xlink:href="{path}"/></filter><rect filter="url(#f)" width="9" height="9"/>',
        f'<use href="{path}#a"/>',
    ):
        with pytest.raises(SourceUnsupported, match="may only refer"):
            load(tmp_path, svg(inside))


def test_a_file_may_be_called_like_what_is_allowed(tmp_path):
    path, _ = png(tmp_path)
    (tmp_path / "data:").mkdir()
    names = ("#white.png", "data:white.png", "data:/white.png")
    for name in names:
        (tmp_path / name).write_bytes(path.read_bytes())
    inside = "".join(f'<image width="48" height="32" href="{name}"/>' for name in names)
    program = [sys.executable, "-P", svgchild.__file__, str(MAX_SIDE), str(MAX_MEMORY), "30", "none"]
    drawn = subprocess.run(program, input=svg(inside).encode(), cwd=tmp_path, capture_output=True, check=True).stdout
    (tmp_path / "x.png").write_bytes(drawn)
    assert load_still("logo", str(tmp_path / "x.png")).a.max() == 0


def test_drawing_within_a_drawing_reads_no_file(tmp_path):
    path, _ = png(tmp_path)
    inner = base64.b64encode(svg(f'<image width="48" height="32" href="{path}"/>').encode()).decode()
    frame = load(tmp_path, svg(f'<image width="48" height="32" href="data:image/svg+xml;base64,{inner}"/>'))
    assert frame.a.max() == 0


ENTITY = '<!DOCTYPE svg [<!ENTITY f "file:///etc/hostname">]>'
DEFAULTS = '<!DOCTYPE svg [<!ATTLIST image href CDATA "/etc/hostname">]>'
PUBLIC = '<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "http://www.w3.org/Graphics/SVG/1.1/DTD/svg11.dtd">'


@pytest.mark.parametrize(
    ("text", "error", "sentence"),
    [
        (svg('<image href="&f;"/>', before=ENTITY), SourceUnsupported, "an SVG whose DOCTYPE declares entities"),
        (svg("<image/>", before=DEFAULTS), SourceUnsupported, "an SVG whose DOCTYPE declares entities"),
        (svg('<image href="&f;"/>'), SourceMalformed, "an SVG that is broken: undefined entity"),
        (svg("<g>"), SourceMalformed, "an SVG that is broken: mismatched tag"),
        (svg()[:-3], SourceMalformed, "an SVG that is broken: "),
        (svg("\0"), SourceMalformed, "an SVG that is broken: "),
        (svg("é").encode("latin-1"), SourceMalformed, "an SVG that is not UTF-8"),
        (svg("é").encode("utf-16"), SourceMalformed, "not an image that can be read"),
        (gzip.compress(svg().encode()), SourceMalformed, "not an image that can be read"),
        ("<!-- <svg> -->", SourceMalformed, "an SVG that is broken: no element found"),
        (f"<html><body>{svg()}</body></html>", SourceMalformed, "not an SVG"),
        ('<svg xmlns="urn:x" width="9" height="9"/>', SourceMalformed, "an SVG that cannot be drawn: "),
        (svg("", 'width="0" height="5"'), SourceMalformed, "an SVG that cannot be drawn: "),
        (svg("", 'width="60000" height="60000"'), SourceUnsupported, "60000×60000, more than 8192 pixels on a side"),
        (svg("", 'width="1e9cm" height="1"'), SourceUnsupported, "37795275591×1, more than"),
        (svg("", 'viewBox="0 0 1e9 1e9"'), SourceUnsupported, "1000000000×1000000000, more than"),
        (svg("", 'viewBox="0 0 1 1" width="900000%" height="9"'), SourceUnsupported, "9000×9, more than"),
        (svg("<rect width='9000' height='9'/>", ""), SourceUnsupported, "9000×9, more than"),
        (svg("<rect width='1e6' height='1e6'/>", ""), SourceUnsupported, "an SVG that cannot be drawn with 2048 MiB"),
        (svg("<g opacity='.5'>" * 900 + "<path d='M0 0h9v9'/>" + "</g>" * 900), None, "cannot be drawn"),
        (svg(" " * MAX_BYTES), SourceUnsupported, f"an SVG of {MAX_BYTES + len(svg())} bytes, more than {MAX_BYTES}"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) and value[0] != "<" else "",
)
def test_what_is_refused_says_so_in_one_sentence(tmp_path, text, error, sentence):
    with pytest.raises(error or (SourceMalformed, SourceUnsupported)) as caught:
        load(tmp_path, text)
    assert str(caught.value).startswith('image "logo": ')
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_editors_write_before_it_is_read(tmp_path):
    before = f'\ufeff<?xml version="1.0" encoding="utf-8"?>\n<!-- {"x" * 5000} -->\n{PUBLIC}\n'
    path = tmp_path / "x.svg"
    path.write_text(svg("<rect width='48' height='32'/>", before=before))
    assert is_still(str(path))
    source = open_source("logo", f"file:{path}", sound=AudioFormat(), settings=Settings())
    assert isinstance(source, StillSource)
    assert (source.picture_size.width, source.picture_size.height) == (48, 32)
    prefixed = '<s:svg xmlns:s="http://www.w3.org/2000/svg" width="9" height="7"><s:rect width="9" height="7"/></s:svg>'
    assert load(tmp_path, prefixed).width == 9


def test_what_is_no_svg_is_left_to_others():
    for head in (b"", b"svg", b"\x89PNG\r\n\x1a\n<svg>", b"<MPD xmlns='urn:mpeg:dash'/>", b"#EXTM3U\n<svg>", b"<svgz>"):
        assert not is_svg(head)

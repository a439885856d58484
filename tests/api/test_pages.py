"""The operator's page, and the description to read: everything they are made of is served, by this server alone, with
the right types and policy.
"""

import re
from html.parser import HTMLParser
from urllib.parse import urljoin

import pytest

from api.app import create_app
from api.pages import FILES
from engine import Engine, Settings

VOID = {"meta", "link", "img", "input", "br"}


@pytest.fixture
def client(tmp_path):
    return create_app(Engine(Settings(data=str(tmp_path), rtmp_port=-1))).test_client()


class Page(HTMLParser):
    """The elements of a page, in order: (tag, attributes); every one is closed."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.title = [], [], ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "title":
            self.title += data


async def test_the_page(client):
    answer = await client.get("/")
    assert answer.status_code == 200
    assert answer.content_type == "text/html; charset=utf-8"
    page = Page(await answer.get_data(as_text=True))
    assert page.title == "Mashtun"
    assert {f"console/{name}" for name in FILES} - {"console/player.js"} <= set(addresses(page))


def addresses(page):
    """What a page refers to, but for parts of itself."""
    used = [attributes.get("src") or attributes.get("href") for _, attributes in page.elements]
    return [each for each in used if each and not each.startswith("#")]


@pytest.mark.parametrize("root", ["http://localhost/", "http://localhost/below/a/"])
@pytest.mark.parametrize("name", ["", "docs", "docs/"])
async def test_what_a_page_refers_to_is_found_also_below_a_path_of_a_proxy(client, root, name):
    page = Page(await (await client.get(f"/{name}")).get_data(as_text=True))
    assert addresses(page)
    for address in addresses(page):
        found = urljoin(root + name, address)
        assert found.startswith(root), address
        assert (await client.get(f"/{found.removeprefix(root)}")).status_code == 200, address


@pytest.mark.parametrize("name", ["console.js", "player.js", "console.css"])
async def test_what_scripts_ask_for_is_below_the_page(client, name):
    text = await (await client.get(f"/console/{name}")).get_data(as_text=True)
    assert not re.search(r"""["'`(]/[\w$]|location\.(host|origin)""", text)


KINDS = ["text/css; charset=utf-8", *["text/javascript; charset=utf-8"] * 2, "image/svg+xml"]


@pytest.mark.parametrize(("name", "kind"), list(zip(FILES, KINDS, strict=True)))
async def test_what_it_is_made_of(client, name, kind):
    answer = await client.get(f"/console/{name}")
    assert answer.status_code == 200
    assert answer.content_type == kind
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("path", ["/", "/docs", *(f"/console/{name}" for name in FILES)])
async def test_nothing_comes_from_outside(client, path):
    answer = await client.get(path)
    text = (await answer.get_data(as_text=True)).replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert not re.search(r"(https?:)?//[a-z0-9.-]+\.[a-z]", text)
    assert "style=" not in text  # the policy forbids it
    assert not re.search(r"<script(?![^>]*src=)", text)
    assert not re.search(r"innerHTML|document\.write|\beval\(", text)
    policy = answer.headers["Content-Security-Policy"].split("; ")
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert not any("unsafe" in rule for rule in policy)


@pytest.mark.parametrize("path", ["/", "/docs", "/console/console.js"])
async def test_it_is_not_sent_twice(client, path):
    first = await client.get(path)
    again = await client.get(path, headers={"If-None-Match": first.headers["ETag"]})
    assert again.status_code == 304
    assert await again.get_data() == b""
    other = await client.get(path, headers={"If-None-Match": '"other"'})
    assert other.status_code == 200
    assert await other.get_data() == await first.get_data()


@pytest.mark.parametrize("name", ["nosuch.js", "index.html", "..%2fapp.py", "%2e%2e", "console.js%00"])
async def test_no_other_file_is_served(client, name):
    answer = await client.get(f"/console/{name}")
    assert answer.status_code == 404
    assert set(await answer.get_json()) == {"error"}


async def test_everything_that_is_used_has_a_name(client):
    page = Page(await (await client.get("/")).get_data(as_text=True))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes in page.elements:
        for reference in attributes.get("aria-labelledby", "").split():
            assert reference in ids
        if tag in ("video", "section"):
            assert "aria-labelledby" in attributes or "aria-label" in attributes
        if tag == "img":
            assert "alt" in attributes
    script = await (await client.get("/console/console.js")).get_data(as_text=True)
    for name in re.findall(r'\$\("([\w-]+)"\)', script):
        assert name in ids


async def test_the_description_can_be_read_as_a_page(client):
    described = await (await client.get("/openapi.json")).get_json()
    answer = await client.get("/docs")
    assert answer.status_code == 200
    assert answer.content_type == "text/html; charset=utf-8"
    text = await answer.get_data(as_text=True)
    page = Page(text)
    assert "script" not in {tag for tag, _ in page.elements}
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [attributes.get("href", "") for _, attributes in page.elements]
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)
    for path in described["paths"]:
        assert f"<code>{path}</code>" in text
    assert "<code>?transition</code> number" in text
    assert "<code>?run</code> integer ≥ 0, required" in text
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert "https://" not in text


async def test_other_doors_are_not_hidden(client):
    assert (await client.get("/nosuch")).status_code == 404
    assert (await client.get("/console")).status_code == 404

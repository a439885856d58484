"""Small mashes and their clips, and what their trees say."""

from fractions import Fraction

from engine.clip import Clip, ColourTween, Container, Ink, Medium, Scale, Shape, Text, Tween
from engine.spec import Raster
from engine.timeline import Mash

SMALL = Raster(320, 180)
RED, BLUE = (1.0, 0.0, 0.0, 1.0), (0.0, 0.0, 1.0, 1.0)
PHOTO = Medium(kind="image", name="photo", size=(400, 300))
FILM = Medium(kind="film", name="film", size=(320, 180), length=30, gain=((0, 1),))
HEART = Shape("M0 0L10 0L5 10Z", 24, 24)
HELLO = Text("Hello", "sans", Ink(0, 2600, 1000))


def still(value):
    """A number that does not change."""
    return Tween(value, value)


def colour(start=RED, end=None):
    """A colour, and what it becomes."""
    return ColourTween(start, end or start)


def clip(content=None, *, frame=0, frames=10, container=None, name="0.0", scale=None, **more):
    """A clip; `more` goes to its container, `container=False` leaves that out."""
    if container is None:
        container = Container(**more)
    return Clip(
        id=name,
        frame=frame,
        frames=frames,
        content=content or colour(),
        scale=scale or Scale(),
        container=container or None,
    )


def mash(*tracks, **more):
    """Tracks of clips, small."""
    return Mash(tracks, raster=SMALL, **more)


def pictures(program, t):
    """The nodes of the video branch."""
    node = program.tree_at(Fraction(t)).root_video_node
    return [] if node is None else list(node.nodes)


def voices(program, t):
    """The nodes of the audio branch."""
    node = program.tree_at(Fraction(t)).root_audio_node
    return [] if node is None else list(node.nodes)


def picture(*args, t=0, **more):
    """The only node of a mash of one clip."""
    (node,) = pictures(mash([clip(*args, **more)]), t)
    return node


def box(node):
    """Where it is on the frame."""
    return (node.dest_x, node.dest_y, node.dest_width, node.dest_height)


def crop(node, size=(400, 300)):
    """What is shown of a picture of that size, in its pixels; -1 where nothing is said."""
    fields = (node.source_x, node.source_y, node.source_width, node.source_height)
    return tuple(-1 if value is None else value * side for value, side in zip(fields, size * 2, strict=True))

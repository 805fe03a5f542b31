"""The report's page: blocks of text, tables and plots, rendered to one HTML file by the templates in templates/."""

import base64
import dataclasses
from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

import jinja2

from trainers import plotting

_TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("trainers.report"),
    autoescape=True,  # titles and paths are text, whatever they contain
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclasses.dataclass(frozen=True)
class Text:
    """A paragraph. A block's `kind` names its macro in page.html."""

    text: str
    kind: ClassVar[str] = "text"


@dataclasses.dataclass(frozen=True)
class Command:
    """A command to copy."""

    caption: str
    words: Sequence[str]
    kind: ClassVar[str] = "command"


class Interval(NamedTuple):
    """A table's cell: a figure and, below it, its interval."""

    figure: str
    span: str


@dataclasses.dataclass(frozen=True)
class Table:
    """A table; the first cell of a row names the row."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str | Interval]]
    words: bool = False  # cells are words: left-aligned, and one below the other on a phone
    folded: str = ""  # if not empty: the table is hidden until the reader opens this line
    kind: ClassVar[str] = "table"


@dataclasses.dataclass(frozen=True)
class Plot:
    """A plot with what it shows."""

    name: str  # of its PNG files
    title: str
    explanation: str
    alt: str  # its figures, for a reader who cannot see it
    draw: plotting.Draw
    size: tuple[float, float] = plotting.SIZE
    kind: ClassVar[str] = "plot"


class Recommended(NamedTuple):
    """A recommendation of an example user."""

    title: str
    held_out: bool  # whether it is a held-out item
    owed_to: Sequence[str]  # titles of the history that it owes most to


class User(NamedTuple):
    """An example user."""

    heading: str
    history: str
    result: str
    recommended: Sequence[Recommended]


@dataclasses.dataclass(frozen=True)
class Users:
    """Example users side by side."""

    users: Sequence[User]
    kind: ClassVar[str] = "users"


Block = Text | Command | Table | Plot | Users


class Section(NamedTuple):
    """A part of the page: rows of one block, or of two that stand side by side where the window is wide enough."""

    title: str
    rows: Sequence[Sequence[Block]]


def draw(sections: Sequence[Section]) -> dict[str, bytes]:
    """PNG files of all plots by file name: NAME.png in the light theme, NAME_dark.png in the dark one."""
    plots = [block for section in sections for row in section.rows for block in row if isinstance(block, Plot)]
    return {
        f"{plot.name}{'_dark' if theme == 'dark' else ''}.png": plotting.png(plot.draw, theme, plot.size)
        for plot in plots
        for theme in plotting.THEMES
    }


def render(title: str, lead: Sequence[str], sections: Sequence[Section], images: Mapping[str, bytes]) -> str:
    """The page, with the images in it.

    Args:
      title: heading of the page.
      lead: paragraphs below it.
      sections: what follows.
      images: what `draw` returned for the sections.
    """
    uris = {name: f"data:image/png;base64,{base64.b64encode(png).decode()}" for name, png in images.items()}
    return _TEMPLATES.get_template("page.html").render(title=title, lead=lead, sections=sections, images=uris)

"""One HTML page that needs nothing else: text, tables and plots, readable on a phone, in light and in dark."""

import base64
import html
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from trainers import plotting


class Html(str):
    """Text that is HTML already; any other string is escaped when it enters the page."""


class Plot(NamedTuple):
    """A plot of a section."""

    name: str  # of its PNG files
    title: str
    alt: str  # what a person who cannot see it should know
    draw: plotting.Draw
    size: tuple[float, float] = (4.8, 3.3)  # inches; narrow, so that its text is legible on a phone


class Section(NamedTuple):
    """A part of the page."""

    title: str
    body: list[Html]


def markup(value: object) -> Html:
    """`value` as HTML."""
    return value if isinstance(value, Html) else Html(html.escape(str(value)))


def element(tag: str, *content: object, **attributes: str) -> Html:
    """<tag attribute="…">content</tag>; `class_` stands for class, and `aria_label` for aria-label."""
    named = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{html.escape(value)}"' for name, value in attributes.items()
    )
    return Html(f"<{tag}{named}>{''.join(map(markup, content))}</{tag}>")


def paragraph(*content: object) -> Html:
    return element("p", *content)


def bullets(items: Iterable[object]) -> Html:
    return element("ul", *(element("li", item) for item in items))


def table(caption: str, head: Sequence[object], rows: Iterable[Sequence[object]], text: bool = False) -> Html:
    """A table whose first column names its rows.

    Args:
      caption: what it shows.
      head: names of the columns.
      rows: cells, as many as `head`.
      text: the cells are words, not numbers: left-aligned and wrapped.
    """
    header = element("tr", *(element("th", name, scope="col") for name in head))
    body = (element("tr", element("th", row[0], scope="row"), *(element("td", c) for c in row[1:])) for row in rows)
    made = element(
        "table",
        element("caption", element("span", caption)),
        element("thead", header),
        element("tbody", *body),
        class_="words" if text else "figures",
    )
    # Wide tables scroll by themselves, also by keyboard; the page does not.
    return element("div", made, class_="scroll", role="region", aria_label=caption, tabindex="0")


def plots(shown: Iterable[Plot]) -> tuple[Html, dict[str, bytes]]:
    """The plots side by side as far as the window is wide, and their PNG files by name.

    Each is drawn in both themes; the browser takes the one that suits.
    """
    figures, files = [], {}
    for plot in shown:
        light, dark = (plotting.png(plot.draw, theme, plot.size) for theme in plotting.THEMES)
        files |= {f"{plot.name}.png": light, f"{plot.name}_dark.png": dark}
        source = Html(f'<source media="(prefers-color-scheme: dark)" srcset="{_data_uri(dark)}">')
        image = Html(f'<img src="{_data_uri(light)}" alt="{html.escape(plot.alt)}">')
        caption = element("figcaption", plot.title)
        figures.append(element("figure", caption, element("picture", source, image)))
    return element("div", *figures, class_="plots"), files


def page(title: str, lead: Iterable[Html], sections: Iterable[Section]) -> str:
    """The whole document."""
    sections = list(sections)
    links = (element("a", s.title, href=f"#{_anchor(s.title)}") for s in sections)
    parts = (
        element("section", element("h2", s.title), *s.body, id=_anchor(s.title), aria_label=s.title) for s in sections
    )
    body = (
        element("header", element("h1", title), *lead)
        + element("nav", *links, aria_label="Sections")
        + element("main", *parts)
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_CSS}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _anchor(title: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in title.lower())


_CSS = """
:root { --page: #f6f8fa; --card: #ffffff; --text: #1f2328; --soft: #57606a; --line: #d8dee4; --link: #0b5fa5;
  --hit: #11692f; --hit-page: #dafbe1; }
@media (prefers-color-scheme: dark) { :root { --page: #0d1117; --card: #161b22; --text: #e6edf3; --soft: #9da7b3;
  --line: #30363d; --link: #6cb6ff; --hit: #8ce99f; --hit-page: #12361f; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1120px; padding: 1rem; background: var(--page); color: var(--text);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: .5rem 0; }
h2 { font-size: 1.25rem; margin: 0 0 .5rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 .3rem; }
p { max-width: 75ch; margin: .4rem 0; }
a { color: var(--link); }
nav { display: flex; flex-wrap: wrap; gap: .3rem 1rem; margin: 1rem 0; }
nav a { padding: .25rem 0; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 1rem; margin: 1rem 0; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr)); gap: 1rem;
  margin: .8rem 0; align-items: start; }
figure { margin: 0; max-width: 560px; }
figcaption, caption { font-weight: 600; text-align: left; padding: .3rem 0; }
img { display: block; width: 100%; height: auto; }
caption span { display: inline-block; max-width: calc(100vw - 4.2rem); }
.scroll { overflow-x: auto; margin: .8rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); vertical-align: top; }
th:first-child { padding-left: 0; }
thead th { color: var(--soft); font-weight: 600; }
tbody th { font-weight: 500; text-align: left; }
thead th:first-child { text-align: left; }
.figures th, .figures td { text-align: right; white-space: nowrap; }
.figures th:first-child { text-align: left; }
.words th, .words td { text-align: left; min-width: 10rem; }
.words th:first-child { min-width: 4rem; white-space: normal; }
.hit { color: var(--hit); background: var(--hit-page); border-radius: 4px; padding: 0 .25rem; font-weight: 600; }
.soft { color: var(--soft); }
.small { font-size: .85em; }
.hit .soft { font-weight: 400; font-size: .85em; }
.users { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 320px), 1fr)); gap: 0 2rem; }
.users p, .users ol { margin: .2rem 0; }
details { margin: .5rem 0; }
summary { cursor: pointer; color: var(--link); }
""".replace("\n", " ")

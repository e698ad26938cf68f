"""matplotlib's SVG, rewritten so that it can stand inside a page under a strict Content-Security-Policy.

Styles become presentation attributes (a policy with hashes forbids ``style="…"``), ids get a prefix (two figures share
one page), the metadata goes, and a title and a description come in for those who listen to the page. Black becomes
``currentColor``, so that axes and text follow the page's own colour; standing alone it is black again.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree
from xml.sax.saxutils import escape, quoteattr

SVG = "{http://www.w3.org/2000/svg}"
XLINK = "{http://www.w3.org/1999/xlink}"
ROOT = {
    "xmlns": "http://www.w3.org/2000/svg",
    "xmlns:xlink": "http://www.w3.org/1999/xlink",
    "role": "img",
    "font-family": "system-ui, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif",
    "stroke-linejoin": "round",
    "stroke-linecap": "butt",
}
LEFT_OUT = ("metadata", "style", "title")
LEFT_OUT_ATTRIBUTES = ("version", "font-family")
INK = "#000000"


def embeddable(svg: str, prefix: str, title: str, description: str) -> str:
    """The figure as one ``<svg>`` element with ids that start with ``prefix``, a title and a description."""
    root = ElementTree.fromstring(svg)
    attributes = {
        **ROOT,
        "id": prefix,
        "viewBox": root.attrib["viewBox"],
        "aria-labelledby": f"{prefix}-title {prefix}-desc",
    }
    head = f'<title id="{prefix}-title">{escape(title)}</title><desc id="{prefix}-desc">{escape(description)}</desc>'
    return f"<svg{_attributes(attributes)}>{head}{_children(root, prefix)}</svg>\n"


def printable(text: str) -> str:
    """The text without the characters that XML cannot hold: controls and halves of surrogate pairs become spaces."""
    return re.sub("[^\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", " ", text)


def _children(element: ElementTree.Element, prefix: str) -> str:
    return "".join(_element(child, prefix) for child in element)


def _element(element: ElementTree.Element, prefix: str) -> str:
    name = str(element.tag).removeprefix(SVG)
    if name in LEFT_OUT:
        return ""
    attributes = _attributes(_own(element, name, prefix))
    # Only <text> and its spans hold text that is meant; elsewhere it is the layout of the source.
    inside = escape(element.text or "") if name in ("text", "tspan") else ""
    inside += _children(element, prefix)
    return f"<{name}{attributes}>{inside}</{name}>" if inside else f"<{name}{attributes}/>"


def _own(element: ElementTree.Element, name: str, prefix: str) -> dict[str, str]:
    own: dict[str, str] = {}
    for key, value in element.attrib.items():
        key = key.replace(XLINK, "xlink:")
        if key == "style":
            own.update((k.strip(), v.strip()) for k, _, v in (part.partition(":") for part in value.split(";")) if v)
        elif key == "id":
            # matplotlib's ids of groups are unused; only what is referred to needs one.
            own |= {} if name == "g" else {"id": f"{prefix}-{value}"}
        elif key == "d":
            own["d"] = " ".join(value.split())
        else:
            own[key] = value.replace("#", f"#{prefix}-", 1) if "url(#" in value or key == "xlink:href" else value
    if name == "text" and "fill" not in own:
        own["fill"] = INK
    return {k: "currentColor" if v == INK else v for k, v in own.items() if k not in LEFT_OUT_ATTRIBUTES}


def _attributes(values: dict[str, str]) -> str:
    return "".join(f" {key}={quoteattr(value)}" for key, value in values.items())

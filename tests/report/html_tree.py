"""A page as a tree, read by the standard library's parser, which is as tolerant as a browser."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

_VOID = {"meta", "link", "br", "img", "hr", "input", "wbr"}


@dataclass
class Node:
    """An element: its attributes, its children and its own text."""

    tag: str
    attributes: dict[str, str | None] = field(default_factory=dict)
    children: list["Node"] = field(default_factory=list)
    own_text: list[str] = field(default_factory=list)

    def all(self, tag: str, class_: str = "") -> list["Node"]:
        """The elements of a kind within this one, in their order."""
        return [
            node
            for node in self.walk()
            if node.tag == tag and class_ in [*(node.attributes.get("class") or "").split(), ""]
        ]

    def walk(self) -> Iterator["Node"]:
        for child in self.children:
            yield child
            yield from child.walk()

    @property
    def text(self) -> str:
        """All text within, in its order."""
        return "".join([*self.own_text, *(child.text for child in self.children)])


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.root = Node("document")
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        node = Node(tag, dict(attrs))
        self.open[-1].children.append(node)
        if tag not in _VOID:
            self.open.append(node)

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(Node("", own_text=[data]))


def parse(document: str) -> Node:
    """The tree of a page whose elements are all closed in their order."""
    reader = _Reader()
    reader.feed(document)
    reader.close()
    assert reader.open == [reader.root], f"not closed: {reader.open[-1].tag}"
    return reader.root

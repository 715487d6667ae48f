"""XML files of others: elements that know their lines, and nothing that grows when it is read."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Iterator, Optional, Union
from xml.parsers import expat

from sact_det.base.errors import InputError
from sact_det.base.files import read_bytes


@dataclass
class Element:
    """An element of a file.

    Attributes:
        file: its path.
        tag: its name.
        line: where it begins, from 1.
        text: what stands in it, without white space around it, and without its children's.
        children: in the file's order.
    """

    file: str
    tag: str
    line: int
    text: str = ""
    children: list["Element"] = field(default_factory=list)

    def find(self, tag: str) -> Optional["Element"]:
        """The first child of a name, or None."""
        return next(self.all(tag), None)

    def all(self, tag: str) -> Iterator["Element"]:
        """The children of a name."""
        return (child for child in self.children if child.tag == tag)

    def require(self, tag: str) -> "Element":
        """The first child of a name. Raises InputError if there is none."""
        found = self.find(tag)
        if found is None:
            raise self.error(f"<{self.tag}> has no <{tag}>")
        return found

    def error(self, problem: str) -> InputError:
        """What is wrong with the element, with its file and line."""
        return InputError(f"{self.file}:{self.line}: {problem}")


def read_xml(path: Union[str, Path], missing: str = "no such file") -> Element:
    """The root element of a file.

    Raises:
        InputError: the file is missing or no XML, or declares a document type: entities may stand for more than anybody
            would write out.
    """
    content = read_bytes(path, "xml file", missing)
    parser, open_elements = expat.ParserCreate(), [Element(str(path), "", 1)]
    parser.buffer_text = True

    def start(tag: str, attributes: object) -> None:
        element = Element(str(path), tag, parser.CurrentLineNumber)
        open_elements[-1].children.append(element)
        open_elements.append(element)

    def end(tag: str) -> None:
        element = open_elements.pop()
        element.text = element.text.strip()

    def text(data: str) -> None:
        open_elements[-1].text += data

    def refuse(*declaration: object) -> None:
        raise InputError(f"{path}:{parser.CurrentLineNumber}: declares a document type; expected elements alone")

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = text, refuse
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        problem = expat.ErrorString(error.code)
        raise InputError(f"{path}:{error.lineno}: not a readable xml file ({problem})") from error
    return open_elements[0].children[0]

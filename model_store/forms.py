"""The form of a table of text: its encoding, separator, decimal mark, line ends and header; and its words."""

import re
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Field

from model_store.cells import DecimalMark
from model_store.parts import Part

# By the names that HTTP gives them. Only those of one byte, or of UTF, bring every byte back as it came.
ENCODINGS = (
    "utf-8",
    "utf-16le",
    "utf-16be",
    *(f"windows-{number}" for number in range(1250, 1259)),
    *(f"iso-8859-{number}" for number in range(2, 17) if number != 12),
    "koi8-r",
    "koi8-u",
)
# Latin-1 is read as windows-1252, which has letters where Latin-1 has control characters.
ALIASES = {
    "ascii": "utf-8",
    "usascii": "utf-8",
    "utf8sig": "utf-8",
    "utf16": "utf-16le",
    "latin1": "windows-1252",
    "iso88591": "windows-1252",
}


def known_encoding(name: str) -> str:
    """An encoding's name as HTTP has it; raises ValueError for one that is not read."""
    short = re.sub(r"[^a-z0-9]", "", name.lower()).replace("cp", "windows")
    known = {encoding.replace("-", ""): encoding for encoding in ENCODINGS} | ALIASES
    if short not in known:
        message = (
            f"{name[:40]!r} is no encoding that is read: utf-8, utf-16, windows-125x, iso-8859-x, koi8-r"
        )
        raise ValueError(message)
    return known[short]


Encoding: TypeAlias = Annotated[str, AfterValidator(known_encoding)]
Separator: TypeAlias = Annotated[str, Field(pattern=r'^[^\w"\r\n.-]$')]
LineEnd: TypeAlias = Literal["\n", "\r\n", "\r"]


class FormOptions(Part):
    """What is said of a table's form; what is None is found out."""

    encoding: Encoding | None = None
    separator: Separator | None = None
    decimal: DecimalMark | None = None
    has_header: bool | None = None


class Form(Part):
    """The form of a table of text; a `marked` one starts with a byte order mark.

    With `row_names` every row has a cell in front for which the header has no name, as R writes it, with
    `trailing` an empty one behind. `said` are the fields that a person said where they could also have been
    found out, and `doubt` says which cells could be meant otherwise, '' if none could.
    """

    encoding: Encoding = "utf-8"
    marked: bool = False
    separator: Separator = ","
    decimal: DecimalMark = "."
    line_end: LineEnd = "\n"
    has_header: bool = True
    row_names: bool = False
    trailing: bool = False
    said: tuple[Literal["separator", "decimal"], ...] = ()
    doubt: str = ""

    @property
    def words(self) -> str:
        """What it is, for the person whose table it is."""
        said = {
            f"separated by {'tabs' if self.separator == chr(9) else repr(self.separator)}": True,
            f"decimal {'point' if self.decimal == '.' else 'comma'}": True,
            self.encoding: True,
            "no header": not self.has_header,
            "a row's name in front of every row": self.row_names,
            "a separator behind every row": self.trailing,
        }
        return ", ".join(words for words, holds in said.items() if holds)

    @property
    def errors(self) -> str:
        """How bytes that the encoding does not have come through unharmed, as codecs name it."""
        return "surrogatepass" if self.encoding.startswith("utf-16") else "surrogateescape"

    def encode(self, text: str) -> bytes:
        r"""Text whose lines end with \n or \r\n as the table has it; what the encoding lacks becomes '?'."""
        if self.line_end == "\r":
            text = text.replace("\n", "\r")
        try:
            return text.encode(self.encoding, self.errors)
        except UnicodeEncodeError:
            return b"".join(self._encode_character(character) for character in text)

    def _encode_character(self, character: str) -> bytes:
        try:
            return character.encode(self.encoding, self.errors)
        except UnicodeEncodeError:
            return b"?"

"""Texts for where they go. Labels come from users, so everything that is printed passes through here."""

import html
import re
import unicodedata

FORMULA = ("=", "+", "-", "@")  # how one begins
LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"{\char34}",  # \textquotedbl needs T1 fonts
    "-": "-{}",  # keeps -- from becoming a dash
    "'": "'{}",
    "`": "`{}",
    **{character: "\\" + character for character in "{}$&#%_"},
}


def one_line(text: str) -> str:
    """White space collapsed and control characters dropped: a table cell is one line of print."""
    kept = (c if unicodedata.category(c)[0] != "C" else " " for c in text)
    return " ".join("".join(kept).split())


def markdown_text(text: str) -> str:
    """For use within a line or a cell: backslashes before all that GitHub reads as markup there, entities for < > &."""
    text = re.sub(r"([\\`*_\[\]|~$]|:(?=\w+:))", r"\\\1", one_line(text))
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def latex_text(text: str) -> str:
    """Latin letters pass; what pdfLaTeX has no glyphs for falls back to its ASCII form or a question mark."""
    characters = []
    for character in unicodedata.normalize("NFC", one_line(text)):
        if character < "\x7f" or "\xc0" <= character <= "\xff":
            characters.append(character)
        else:
            characters += unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode() or "?"
    return "".join(LATEX.get(character, character) for character in characters)


def csv_text(text: str) -> str:
    """A leading apostrophe keeps spreadsheets from running a label as a formula, in full-width characters too.

    Tabs and line ends, which some take for the beginning of one as well, are spaces already.
    """
    text = one_line(text)
    return "'" + text if unicodedata.normalize("NFKC", text[:1]).startswith(FORMULA) else text


def html_text(text: str) -> str:
    """For use between tags and within a quoted attribute."""
    return html.escape(one_line(text))

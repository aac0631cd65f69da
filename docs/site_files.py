"""What mkdocs needs besides docs/: README as the front page, CONTRIBUTING, and the files that pages link to elsewhere.

On GitHub a page links to ../reports/miniature/piebench.md; the site has that file as repository/reports/... instead.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
}  # of the repository, and their names in the site
OUTSIDE = "repository/"  # where other files of the repository are in the site
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)\s#]+)")  # in [text](link#anchor); not those to other sites


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages outside docs/, and every file that a page links to."""
    for path, name in PAGES.items():
        files.append(File.generated(config, name, abs_src_path=str(ROOT / path)))
    for page in files.documentation_pages():
        for link in LINK.findall(page.content_string):
            path = _target(page.src_uri, link)
            name = _name(path)
            if (ROOT / path).is_file() and files.get_file_from_path(name) is None:
                files.append(File.generated(config, name, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links as they are in the site."""
    here = page.file.src_uri
    folder = posixpath.dirname(here) or "."
    return LINK.sub(lambda link: posixpath.relpath(_name(_target(here, link[0])), folder), markdown)


def _target(page: str, link: str) -> str:
    """The file in the repository that a page of the site links to."""
    of_root = {name: path for path, name in PAGES.items()}
    if page in of_root:
        source = of_root[page]
    else:
        source = page.removeprefix(OUTSIDE) if page.startswith(OUTSIDE) else f"docs/{page}"
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), link))


def _name(path: str) -> str:
    """A file of the repository by its name in the site."""
    return PAGES.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else OUTSIDE + path)

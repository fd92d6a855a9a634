"""Build the site: English in FOLDER, Chinese in FOLDER/zh. Warnings and broken links are errors.

    python -m docs.build [FOLDER]

FOLDER is `site` unless given. Needs the `docs` extra; the built pages need no server and no network.
"""

from __future__ import annotations

import sys
from pathlib import Path

from sphinx.cmd.build import build_main

DOCS = Path(__file__).parent


def build(site: Path) -> int:
    """Build both languages.

    Args:
        site: folder to write; what is there and has not changed is kept.

    Returns:
        0, or an exit status of Sphinx for a language that failed.
    """
    status = 0
    for pages, options in ((site, []), (site / "zh", ["-t", "zh"])):
        doctrees = site.parent / f"{site.name}.doctrees" / pages.name
        status |= build_main(["-q", "-W", "--keep-going", *options, "-d", str(doctrees), str(DOCS), str(pages)])
    return status


if __name__ == "__main__":
    sys.exit(build(Path(sys.argv[1] if len(sys.argv) > 1 else "site").resolve()))

"""Put the page that an evaluation wrote into a page here: python docs/results/paste.py OUT/results.md PAGE.md

It takes the place of what stands between the lines ``<!-- the run -->`` and ``<!-- end of the run -->``; the
headings of the run become one level lower.
"""

import re
import sys
from pathlib import Path

BEGIN, END = "<!-- the run -->", "<!-- end of the run -->"


def pasted(page: str, run: str) -> str:
    """The page with the run in its place."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    lower = re.sub(r"^## ", "### ", run.strip(), flags=re.MULTILINE)
    return f"{before}{BEGIN}\n\n{lower}\n\n{END}{after}"


if __name__ == "__main__":
    run, page = (Path(argument) for argument in sys.argv[1:])
    page.write_text(pasted(page.read_text(), run.read_text()))

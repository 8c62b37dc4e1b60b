"""Put the page that an evaluation wrote into a page here: python docs/results/paste.py OUT/results.md PAGE.md

It takes the place of what stands between the lines ``<!-- the run -->`` and ``<!-- end of the run -->``; the
headings of the run become one level lower.
"""

import re
import sys
from pathlib import Path

BEGIN, END = "<!-- the run -->", "<!-- end of the run -->"


def pasted(page: str, run: str) -> str:
    """The page with the run in its place.

    Raises:
        SystemExit: the page does not have one such place, or the run has one itself.
    """
    if page.count(BEGIN) != 1 or page.count(END) != 1 or page.index(BEGIN) > page.index(END):
        raise SystemExit(f"the page needs one line {BEGIN} and, after it, one line {END}.")
    if BEGIN in run or END in run:
        raise SystemExit("this is a page with a run in it, not the page that a run wrote.")
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    lower = re.sub(r"^(#+ )", r"#\1", run.strip(), flags=re.MULTILINE)
    return f"{before}{BEGIN}\n\n{lower}\n\n{END}{after}"


def main(arguments: list[str]) -> None:
    """Change the page, and nothing else of it than the run."""
    if len(arguments) != 2:
        raise SystemExit(__doc__)
    run, page = (Path(argument) for argument in arguments)
    page.write_text(pasted(page.read_text("utf-8"), run.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])

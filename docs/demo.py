#!/usr/bin/env python3
"""demo.py PROGRAM: runs `PROGRAM demo --for 20s` on a terminal and prints what was to be seen there as an SVG. `./x picture` calls it.

It shows one screen after the other, as they were; where pictures do not move, the last one.
"""

import fcntl
import os
import pty
import struct
import sys
import termios
import time
from html import escape

import pyte

COLUMNS, ROWS = 100, 18
# One character, in pixels of the picture.
WIDE, HIGH = 8.0, 18
# Between two screens, and how long the last one stands.
STEP, REST = 1.0, 6.0
COLOURS = {"default": "#d4d4d4", "red": "#f48771", "green": "#89d185", "brown": "#cca700", "blue": "#6cb6ff", "cyan": "#56d4dd"}


def main() -> None:
    screens, code = watch([sys.argv[1], "demo", "--for", "20s"])
    if code != 0:
        sys.exit(f"the demo ended with {code}")
    print(picture(screens))


def watch(command: list[str]) -> tuple[list[list[str]], int]:
    """The screens of the command, a second apart and the last one, as lines of SVG; and its exit code."""
    child, terminal = pty.fork()
    if child == 0:
        os.environ["TERM"] = "xterm-256color"
        # The child waits until the terminal has its size.
        sys.stdin.readline()
        os.execv(command[0], command)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    screen = pyte.Screen(COLUMNS, ROWS)
    stream = pyte.ByteStream(screen)
    os.write(terminal, b"\n")
    os.read(terminal, 2)  # the echo of this line
    screens, due = [], time.monotonic() + STEP
    while True:
        try:
            text = os.read(terminal, 65536)
        except OSError:  # as Linux tells the end of a terminal
            break
        # Many readings are one drawing: between them the screen is half wiped.
        stream.feed(text)
        if time.monotonic() >= due and "Ctrl-C" in "".join(screen.display):
            screens.append(lines(screen))
            due = time.monotonic() + STEP
    _, status = os.waitpid(child, 0)
    return [*screens, lines(screen)], os.waitstatus_to_exitcode(status)


def lines(screen: pyte.Screen) -> list[str]:
    return [line(screen.buffer[row], row) for row in range(ROWS)]


def line(cells: dict, row: int) -> str:
    """A line of the screen: neighbours that look alike are one piece."""
    pieces: list[tuple[str, str]] = []
    for column in range(COLUMNS):
        cell = cells[column]
        colour = COLOURS.get(cell.fg, COLOURS["default"])
        if pieces and (pieces[-1][0] == colour or cell.data == " "):
            pieces[-1] = (pieces[-1][0], pieces[-1][1] + cell.data)
        else:
            pieces.append((colour, cell.data))
    told = "".join(span(colour, text) for colour, text in pieces).rstrip()
    return f'<text x="{2 * WIDE}" y="{(row + 2) * HIGH}">{told}</text>' if told else ""


def span(colour: str, text: str) -> str:
    text = escape(text, quote=False)
    return text if colour == COLOURS["default"] else f'<tspan fill="{colour}">{text}</tspan>'


def picture(screens: list[list[str]]) -> str:
    wide, high = int((COLUMNS + 4) * WIDE), (ROWS + 2) * HIGH
    whole = len(screens) * STEP + REST
    style = [
        ".s{visibility:hidden}.s:last-of-type{visibility:visible}",
        "@media (prefers-reduced-motion:no-preference){",
    ]
    for number in range(len(screens)):
        begin, end = number * STEP / whole * 100, (number + 1) * STEP / whole * 100
        is_last = number == len(screens) - 1
        seen = f"{begin:.2f}%{{visibility:visible}}" + ("" if is_last else f"{end:.2f}%{{visibility:hidden}}")
        first = "" if number == 0 else "0%{visibility:hidden}"
        last = "visible" if is_last else "hidden"
        style.append(f"@keyframes k{number}{{{first}{seen}100%{{visibility:{last}}}}}")
        style.append(f"#s{number}{{animation:k{number} {whole:.0f}s step-end infinite}}")
    style.append("}")
    groups = []
    for number, screen in enumerate(screens):
        body = "\n".join(text for text in screen if text)
        groups.append(f'<g class="s" id="s{number}">\n{body}\n</g>')
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" width="{wide}" height="{high}" role="img" xml:space="preserve" '
        f'font-family="ui-monospace,SFMono-Regular,Menlo,Consolas,monospace" font-size="{HIGH - 5}" fill="{COLOURS["default"]}">',
        "<title>o365feed demo: records of a simulated tenant as they are published, and the account at the end</title>",
        f"<style>{chr(10).join(style)}</style>",
        f'<rect width="{wide}" height="{high}" rx="8" fill="#1e1e1e"/>',
        *groups,
        "</svg>",
    ])


main()

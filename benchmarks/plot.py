"""A line chart as SVG: few enough demands to write it by hand."""

from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 360, 60, 150, 40, 50
COLOURS = ("#1b6ca8", "#d1495b", "#2e8b57", "#b07d12", "#6a4c93", "#444444")

type Line = Sequence[tuple[float, float]]


def chart(title: str, across: str, up: str, lines: Mapping[str, Line]) -> str:
    """Lines over evenly spaced steps of x, from zero up."""
    steps = sorted({x for line in lines.values() for x, _ in line})
    highest = max(y for line in lines.values() for _, y in line) * 1.1
    wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def at(x: float, y: float) -> tuple[float, float]:
        step = steps.index(x) / max(1, len(steps) - 1)
        return LEFT + step * wide, TOP + high * (1 - y / highest)

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif"'
        ' font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        _text(LEFT, 22, title, size=15),
        _text(LEFT + wide / 2, HEIGHT - 10, across, anchor="middle"),
        _text(LEFT, TOP - 6, up, anchor="middle"),
    ]
    for number in range(5):
        value = highest * number / 4
        _, y = at(steps[0], value)
        out.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{LEFT + wide}" y2="{y:.1f}" stroke="#ddd"/>')
        out.append(_text(LEFT - 8, y + 4, f"{value:.3g}", anchor="end"))
    for x in steps:
        out.append(_text(at(x, 0)[0], HEIGHT - BOTTOM + 18, f"{x:g}", anchor="middle"))
    for number, (name, line) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        points = [at(x, y) for x, y in line]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points]
        out.append(_text(LEFT + wide + 12, TOP + 16 * number + 8, name, colour=colour))
    return "\n".join([*out, "</svg>"]) + "\n"


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", size: int = 12, colour: str = "#222"
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{colour}">'
        f"{escape(text)}</text>"
    )

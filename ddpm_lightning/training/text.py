"""Text for the console and the dashboards."""

import textwrap

_WIDTH, _LABEL = 110, 11  # characters of a line, and of what stands before it


def labelled(**texts: str) -> str:
    """A block of lines for each label that has a text."""
    lines = []
    for label, text in texts.items():
        parts = [line for part in text.split("\n") for line in textwrap.wrap(part, _WIDTH - _LABEL)]
        for number, line in enumerate(parts):
            lines.append(f"{'' if number else label:<{_LABEL}}{line}")
    return "\n".join(lines)

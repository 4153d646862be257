"""Tables for people, from cards."""

from collections.abc import Sequence

from ddpm_lightning.evaluation.measure import Card

_DIRECTIONS = {True: "less", False: "more", None: "neither"}
HEADER = ["measure", "weights", "value", "95 %", "unit", "better", "real against real", "clips"]


def table(cards: Sequence[Card]) -> str:
    """Return a row for each card: its value +- standard error, unit, direction and floor."""
    return aligned(HEADER, [row(card) for card in cards])


def row(card: Card) -> list[str]:
    """Return the cells of a card."""
    return [
        card.name,
        str(card.run["weights"]),
        number(card),
        f"{card.interval[0]:.4g} to {card.interval[1]:.4g}" if card.interval else "",
        card.unit,
        _DIRECTIONS[card.less_is_better],
        real_against_real(card),
        counts(card),
    ]


def number(card: Card) -> str:
    """Return a value +- standard error."""
    error = f" +- {card.standard_error:.2g}" if card.standard_error is not None else ""
    return f"{card.value:.5g}{error}"


def real_against_real(card: Card) -> str:
    """Return the ends of the floor."""
    return f"{card.floor.low:.4g} to {card.floor.high:.4g}" if card.floor else ""


def counts(card: Card) -> str:
    """Return how many clips, and samples if there are any, the number is of."""
    num_clips = card.facts.get("num_clips", card.clips["num_held_out"])
    return f"{num_clips} held out" + (
        f", {card.samples['num_samples']} samples" if card.samples else ""
    )


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return lines with the cells of a column below each other; columns without content go."""
    columns = [
        column for column in zip(header, *rows, strict=True) if any(cell for cell in column[1:])
    ]
    widths = [max(map(len, column)) for column in columns]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in zip(*columns, strict=True)
    )
    return "\n".join(lines)

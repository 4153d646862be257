"""Tables for people, from measured errors."""

from ddpm_lightning.evaluation.levels import LevelErrors


def table(results: dict[str, LevelErrors]) -> str:
    """Return the x_0 error at each level, a column for each set of weights (raw, ema), and the
    mean of the weighted error in the last line.
    """
    rows = [["log-SNR", *(f"{name} x_0 error" for name in results)]]
    for errors in zip(*(result.by_level() for result in results.values()), strict=True):
        rows.append([f"{errors[0].log_snr:+.2f}", *(f"{error.x_0:.6f}" for error in errors)])
    means = [f"{r.mean():.6f} +- {r.standard_error():.6f}" for r in results.values()]
    rows.append(["val/error", *means])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )

"""Tables for people, from measured losses."""

from ddpm_lightning.evaluation.losses import LossByLogSNR


def table(results: dict[str, LossByLogSNR]) -> str:
    """Loss and x_0 error by log-SNR bin, a pair of columns for each set of weights (raw, ema).

    `loss` is on the objective's own target; `x_0 error`, the mean squared error of the x_0
    estimate, can be compared between objectives.
    """
    names = list(results)
    header = ["log-SNR", "pairs"] + [f"{n} {what}" for what in ("loss", "x_0 error") for n in names]
    rows = []
    for parts in zip(*(results[name].by_bin() for name in names), strict=True):
        label = str(parts[0]["log_snr"]).replace("_", " ")
        values = [float(part[key]) for key in ("loss", "clean_mse") for part in parts]
        rows.append([label, f"{parts[0]['count']:.0f}", *(f"{value:.5f}" for value in values)])
    means = [results[name].mean()[key] for key in ("loss", "clean_mse") for name in names]
    count = sum(int(row[1]) for row in rows)
    rows.append(["all", str(count), *(f"{value:.5f}" for value in means)])
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = [
        "  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in columns)
        for columns in (enumerate(zip(row, widths, strict=True)) for row in [header, *rows])
    ]
    return "\n".join(lines)

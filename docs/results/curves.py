"""Draw training curves: python docs/results/curves.py OUT.png CURVE [CURVE ...]

CURVE: TITLE:KEY:FILE.jsonl, one key of a metrics.jsonl.
"""

import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt


def main() -> None:
    out, *curves = sys.argv[1:]
    figure, axes = plt.subplots(1, len(curves), figsize=(4.2 * len(curves), 2.8), layout="constrained")
    for axis, curve in zip(axes if len(curves) > 1 else [axes], curves):
        title, key, file = curve.split(":", 2)
        rows = [json.loads(line) for line in Path(file).read_text().splitlines()]
        rows = [row for row in rows if key in row]
        axis.plot([row["step"] for row in rows], [row[key] for row in rows], linewidth=1.2)
        axis.set(title=title, xlabel="step", ylabel=key)
        axis.grid(alpha=0.3)
        axis.locator_params(axis="x", nbins=5)
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    main()

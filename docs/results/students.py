"""Students beside their teacher: python docs/results/students.py table TEACHER STUDENT [STUDENT ...]

Folders of ``evaluate worlds`` with the same scenes.

    table TEACHER STUDENT ...             rows of the page's table, then differences, scene by scene
    ten TEACHER STUDENT OUT.png           two ``evaluate explorations``, clip by clip: a table, a drawing
    strip OUT.jpg SCENES FRAMES NAME=FOLDER ...   frames (such as 0,2,4) of the first scenes that all have

95 % intervals: Student's t of means and of ratios of means.
"""

import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image, ImageDraw

from camctrl_jax.metrics.intervals import Interval, paired, ratio_of_means

TEACHER = "32 steps, camera 2, text 1"
MEASURES = {
    "psnr": 2,
    "energy": 2,
    "alpha": 3,
    "alpha_off": 3,
    "gain_decoy": 2,
    "sharpness": 2,
    "alive": 2,
    "ssim": 3,
}
DIFFERENCES = (*MEASURES, "spread_over_skill", "spread_over_skill_hidden", "variance_hidden")


def main() -> None:
    command, *rest = sys.argv[1:]
    {"table": table, "ten": ten, "strip": strip}[command](*rest)


def table(*folders: str) -> None:
    runs = [json.loads((Path(folder) / "results.json").read_text()) for folder in folders]
    rows = {row: run for run in runs for row in run["frechet"]["same_scenes"] if row.endswith("/i2v")}
    rows = {row.removesuffix("/i2v"): run for row, run in rows.items()}
    for row, run in rows.items():
        told = [f"{measure} {said(column(run, row, measure), MEASURES[measure])}" for measure in MEASURES]
        for region in ("all", "hidden"):
            spread = run["spread_over_skill"][f"{row}/i2v/{region}"]
            told.append(
                f"spread over skill, {region} {spread['value']:.2f} ({spread['low']:.2f} to "
                f"{spread['high']:.2f}), variance {spread['variance']:.0f}"
            )
        others, same = (run["frechet"][key] for key in ("twins", "same_scenes"))
        told.append(f"frechet {others[row + '/i2v']:.2f}; same scenes {same[row + '/i2v']:.2f}")
        print(f"{row}:", *told, sep="\n  ")
    firsts = {TEACHER: runs[0], "16 steps, camera 2, text 1": runs[0], "4 steps, camera 2, text 1": runs[0]}
    for first, run in firsts.items():
        for second, other in rows.items():
            if other is not run or first == TEACHER != second:
                print(f"{second} minus {first}:")
                for measure in DIFFERENCES:
                    pair = column(run, first, measure), column(other, second, measure)
                    print(f"  {measure} {signed(paired(*pair))}; ratio {ratio(*pair)}")
                softer = (1.0 - column(run, first, "sharpness"), 1.0 - column(other, second, "sharpness"))
                print(f"  1 - sharpness: ratio {ratio(*softer)}")


def ten(teacher: str, student: str, out: str) -> None:
    runs = [json.loads((Path(folder) / "results.json").read_text()) for folder in (teacher, student)]
    keys = {"psnr_seen": "seen before, dB", "psnr": "PSNR, dB", "sharpness": "gradient energy / truth"}
    figure, axes = plt.subplots(1, len(keys), figsize=(4.2 * len(keys), 2.8), layout="constrained")
    for axis, (key, name) in zip(axes, keys.items()):
        for run, label in zip(runs, ("teacher, 64 evaluations", "flow map, 4")):
            each = run["curves"]["retrieved-4"][key]
            clips = np.arange(1, len(each) + 1)
            mean, low, high = (np.array([one[part] for one in each]) for part in ("mean", "low", "high"))
            axis.plot(clips, mean, label=label, linewidth=1.2)
            axis.fill_between(clips, low, high, alpha=0.2)
            cells = (f"{m:.2f} ({a:.2f} to {b:.2f})" for m, a, b in zip(mean, low, high))
            print(f"| {name}: {label} |", " | ".join(cells), "|")
        axis.set(xlabel="clip", title=name)
        axis.grid(alpha=0.3)
    axes[0].legend()
    figure.savefig(out, dpi=90)


def strip(out: str, shown: str, frames: str, *named: str) -> None:
    numbers = [int(number) for number in frames.split(",")]
    folders = {name: Path(folder) / "clips" for name, folder in (each.split("=", 1) for each in named)}
    scenes = sorted(set.intersection(*({p.name for p in path.glob("*.npz")} for path in folders.values())))
    rows = []
    for name, path in folders.items():
        kept = [np.load(path / scene) for scene in scenes]
        if not rows:
            rows.append(("truth", [each["strip/true render"] for each in kept]))
        rows.append((name, [each["strip/i2v"] for each in kept]))
    rows = [(name, clips[: int(shown)]) for name, clips in rows]
    scenes = scenes[: int(shown)]
    height, width = rows[0][1][0].shape[1:3]
    left, gap, line = 110, 6, height + 2
    across = len(numbers) * width + gap
    canvas = Image.new("RGB", (left + len(scenes) * across, len(rows) * line), "white")
    for number, (name, clips) in enumerate(rows):
        ImageDraw.Draw(canvas).text((4, number * line + height // 2 - 6), name, fill="black")
        for scene, clip in enumerate(clips):
            picture = Image.fromarray(np.concatenate(list(clip[numbers]), axis=1))
            canvas.paste(picture, (left + scene * across, number * line))
    canvas.save(out, quality=85)


def column(run: dict, row: str, measure: str) -> np.ndarray:
    """f64 by scene; NaN where a scene has none."""
    values = [scene["values"].get(f"{row}/i2v/{measure}") for scene in run["per_scene"]]
    return np.array([np.nan if value is None else value for value in values])


def said(values: np.ndarray, digits: int) -> str:
    values = values[np.isfinite(values)]
    found = paired(np.zeros_like(values), values)
    if found is None:
        return "-"
    return f"{found.mean:.{digits}f} ({found.low:.{digits}f} to {found.high:.{digits}f})"


def signed(found: Interval | None) -> str:
    return "-" if found is None else f"{found.mean:+.3f} ({found.low:+.3f} to {found.high:+.3f})"


def ratio(first: np.ndarray, second: np.ndarray) -> str:
    found = ratio_of_means(first, second)
    return "-" if found is None else f"{found.mean:.3f} ({found.low:.3f} to {found.high:.3f})"


if __name__ == "__main__":
    main()

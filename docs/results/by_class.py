"""Two runs of evaluate worlds beyond their pages: python docs/results/by_class.py FIRST OUT

Prints the difference of image to video, OUT minus FIRST, scene by scene, for all and for each class and
difficulty of path; then of every run the median of alpha* and the share of paths within 5 %, motion over the
true render's, and medians of camera errors. One run alone will do, too. 95 % intervals: Student's t of means,
Wilson's of shares, order statistics of medians.
"""

import json
import sys
from pathlib import Path

import numpy as np
from scipy import stats

from camctrl_jax.metrics.intervals import Interval, paired, ratio_of_means, share_interval

MEASURES = ("energy", "gain_decoy", "psnr", "sharpness", "alpha", "alpha_off")


def main() -> None:
    runs = {path: scenes_of(Path(path)) for path in sys.argv[1:]}
    if len(runs) == 2:
        first, second = runs.values()
        both = [seed for seed in first if seed in second]
        groups = {"all": both}
        for seed in both:
            for key in ("path_class", "difficulty"):
                if second[seed][key]:
                    groups.setdefault(second[seed][key], []).append(seed)
        for group, seeds in groups.items():
            told = (
                f"{m} {said(paired(column(first, seeds, m), column(second, seeds, m)))}" for m in MEASURES
            )
            print(f"{group}, {len(seeds)} scenes:", *told, sep="\n  ")
    for path, scenes in runs.items():
        alpha = column(scenes, scenes, "alpha")
        print(f"{path}\n  alpha*: median {median(alpha)}", end="; ")
        near = np.where(np.isnan(alpha), np.nan, np.abs(alpha - 1.0) <= 0.05)
        print(f"within 5 %: {said(share_interval(near))}")
        for key in scenes[next(iter(scenes))]["values"]:
            task, _, measure = key.rpartition("/")
            if measure == "motion_px" and task != "baseline/truth":
                ratio = ratio_of_means(whole(scenes, "baseline/truth/motion_px"), whole(scenes, key))
                print(f"  motion of {task} over the truth's: {said(ratio)}")
        for measure in ("rot_err_aligned_deg", "trans_err_aligned_share"):
            print(f"  {measure}: median {median(column(scenes, scenes, measure))}")


def scenes_of(folder: Path) -> dict[int, dict]:
    return {each["seed"]: each for each in json.loads((folder / "results.json").read_text())["per_scene"]}


def column(scenes: dict[int, dict], seeds: object, measure: str) -> np.ndarray:
    """Of the first row's image to video, f64 by scene; NaN where a scene has none."""
    values = scenes[next(iter(scenes))]["values"]
    row = next((key.removesuffix("/psnr") for key in values if key.endswith("/i2v/psnr")), "no i2v")
    return whole({seed: scenes[seed] for seed in seeds}, f"{row}/{measure}")


def whole(scenes: dict[int, dict], key: str) -> np.ndarray:
    return np.array([each["values"].get(key) for each in scenes.values()], np.float64)


def said(found: Interval | None) -> str:
    return "-" if found is None else f"{found.mean:.3f} ({found.low:.3f} to {found.high:.3f})"


def median(values: np.ndarray) -> str:
    """With the order statistics, equally far from both ends, between which it lies 95 times in 100."""
    known = np.sort(values[np.isfinite(values)])
    if not len(known):
        return "-"
    place = max(0, int(stats.binom.ppf(0.025, len(known), 0.5)) - 1)
    return f"{np.median(known):.3f} ({known[place]:.3f} to {known[-1 - place]:.3f}) of {len(known)}"


if __name__ == "__main__":
    main()

"""Bars of results/speed.json, as results/speed.svg: `python -m benchmarks.picture`."""

import json
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from .report import RESULTS

# Okabe and Ito's colours, which the colour-blind can tell apart.
COLOURS = {"ours": "#0072B2", "FlaxViT": "#D55E00", "jimm": "#009E73", "timm": "#CC79A7"}
COLOURS |= {"timm compiled": "#E69F00", "HF torch": "#999999", "ours, reading JPEGs": "#56B4E9"}


def draw(works: dict[str, dict[str, Any]]) -> Figure:
    """By work and peer, best images per second -> bars of their ratios to ours."""
    works = {name: found for name, found in works.items() if "best" in found["ours"]}
    rows = [(name, peer) for name in works for peer, item in works[name].items() if "best" in item]
    figure = Figure((8, 0.22 * len(rows) + 0.35 * len(works) + 0.6), layout="constrained")
    axes = figure.subplots()
    place, ticks = 0.0, []
    for name, found in works.items():
        peers = {peer: item["best"] for peer, item in found.items() if "best" in item}
        ticks.append((place + (len(peers) - 1) / 2, name))
        for peer, best in peers.items():
            label = f"{peer}, {best:.1f} images/s"
            axes.barh(place, best / peers["ours"], 0.9, color=COLOURS[peer])
            axes.text(best / peers["ours"] + 0.02, place, label, va="center", fontsize=8)
            place += 1
        place += 1.2
    axes.invert_yaxis()
    axes.set_yticks(*zip(*ticks))
    axes.set_xlabel("images per second, best of a run, as a multiple of ours")
    axes.set_xlim(0, 1.3 * axes.get_xlim()[1])
    axes.axvline(1, color="#0072B2", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def main() -> None:
    """Draw the file that is there; the same numbers give the same bytes."""
    works = json.loads((RESULTS / "speed.json").read_text())["works"]
    with matplotlib.rc_context({"svg.hashsalt": "vit-cls", "svg.fonttype": "path"}):
        draw(works).savefig(RESULTS / "speed.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()

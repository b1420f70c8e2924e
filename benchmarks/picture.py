"""Bar chart of results/speed.json as results/speed.svg: `python -m benchmarks.picture`."""

import json
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from .report import RESULTS

# Okabe and Ito's colours, which colour-blind readers can distinguish.
COLOURS = {"ours": "#0072B2", "FlaxViT": "#D55E00", "jimm": "#009E73", "timm": "#CC79A7"}
COLOURS |= {"timm compiled": "#E69F00", "HF torch": "#999999", "ours, reading JPEGs": "#56B4E9"}


def draw(works: dict[str, dict[str, Any]]) -> Figure:
    """Bars for each work: the best throughput of each peer as a multiple of ours."""
    best = {
        name: {peer: item["best"] for peer, item in results.items() if peer in COLOURS and "best" in item}
        for name, results in works.items()
        if "best" in results["ours"]
    }
    figure = Figure((8, 0.22 * sum(map(len, best.values())) + 0.35 * len(best) + 0.6), layout="constrained")
    axes = figure.subplots()
    position, ticks = 0.0, []
    for name, peers in best.items():
        ticks.append((position + (len(peers) - 1) / 2, name))
        for peer, speed in peers.items():
            axes.barh(position, speed / peers["ours"], 0.9, color=COLOURS[peer])
            label = f"{peer}, {speed:.1f} images/s"
            axes.text(speed / peers["ours"] + 0.02, position, label, va="center", fontsize=8)
            position += 1
        position += 1.2
    axes.invert_yaxis()
    axes.set_yticks(*zip(*ticks))
    axes.set_xlabel("images per second, best of a run, as a multiple of ours")
    axes.set_xlim(0, 1.5 * axes.get_xlim()[1])
    axes.margins(y=0.01)
    axes.axvline(1, color="#0072B2", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def main() -> None:
    """Draw results/speed.json; the same numbers give the same bytes."""
    works = json.loads((RESULTS / "speed.json").read_text())["works"]
    with matplotlib.rc_context({"svg.hashsalt": "vit-cls", "svg.fonttype": "path"}):
        draw(works).savefig(RESULTS / "speed.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()

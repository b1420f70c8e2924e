"""The table, the picture and the ratios of the page on speed are those of the numbers that were measured."""

import json
import re
from pathlib import Path

from benchmarks import beside_torchax
from benchmarks.picture import COLOURS, draw
from benchmarks.report import RESULTS
from benchmarks.speed import LIMITS, WORKS, rows

MEASURED = json.loads((RESULTS / "speed.json").read_text())
PAGE = (Path(__file__).parents[1] / "docs" / "speed.md").read_text()


def test_the_table_is_that_of_the_numbers():
    assert list(MEASURED["works"]) == list(WORKS)
    lines = [line for name, found in MEASURED["works"].items() for line in rows(name, WORKS[name][0], found)]
    table = (RESULTS / "speed.md").read_text().splitlines()
    assert table[0] == MEASURED["machine"]
    assert table[4:] == lines
    assert not any(limit in line for limit in LIMITS for line in lines)


def test_the_picture_has_a_bar_for_each_peer_that_was_measured():
    (axes,) = draw(MEASURED["works"]).axes
    peers = [(peer, item) for found in MEASURED["works"].values() for peer, item in found.items()]
    expected = [f"{peer}, {item['best']:.1f} images/s" for peer, item in peers if peer in COLOURS and "best" in item]
    assert [text.get_text() for text in axes.texts] == expected
    assert len(axes.patches) == len(expected) > 30


def test_the_ratios_of_the_page_are_those_of_the_numbers():
    written = re.findall(r"\d+\.\d\d / \d+\.\d\d", PAGE[: PAGE.index("- **Where the processor")])
    measured = []
    for found in list(MEASURED["works"].values())[:7]:
        ours = found["ours"]
        for peer in ("FlaxViT", "jimm", "timm", "timm compiled", "HF torch"):
            if peer in found:
                measured.append(" / ".join(f"{ours[key] / found[peer][key]:.2f}" for key in ("best", "median")))
    assert written == measured


def test_the_shares_of_the_limit_are_those_of_the_numbers():
    written = re.findall(r"(\d+) % \|$", PAGE[: PAGE.index("- **Where the processor")], re.MULTILINE)
    ours = [rows(name, WORKS[name][0], MEASURED["works"][name])[0] for name in list(WORKS)[:7]]
    assert written == [re.findall(r"(\d+)% of", line)[0] for line in ours]


def test_the_times_of_compiling_are_those_of_the_numbers():
    deep, shallow = (MEASURED["works"][f"training Ti/16, {layers} layers, B=2"] for layers in (24, 12))
    ours, theirs = ([f"{work[peer]['compiling']:.1f} s" for work in (deep, shallow)] for peer in ("ours", "FlaxViT"))
    text = " ".join(PAGE.split())
    assert f"of a Ti/16 with 24 layers took {ours[0]} longer than later ones, with 12 layers {ours[1]}" in text
    assert f"; FlaxViT's {theirs[0]} and {theirs[1]} " in text


def test_the_table_beside_torchax_is_that_of_its_numbers_and_the_page_has_them():
    measured = json.loads((RESULTS / "torchax.json").read_text())
    assert list(measured["works"]) == list(beside_torchax.WORKS)
    table = (RESULTS / "torchax.md").read_text().splitlines()
    assert table[0] == measured["machine"]
    lines = [line for line in table if line.startswith("| ")][1:]
    assert lines == beside_torchax.rows(measured)
    assert "\n".join(lines) in PAGE

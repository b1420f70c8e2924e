"""Each measured number of README and docs is in a committed file of results, perhaps rounded."""

import re
from collections.abc import Iterator
from decimal import Decimal
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = [ROOT / "README.md", *sorted(page for page in (ROOT / "docs").glob("*.md") if not page.is_symlink())]

# (page, heading): the files of results that have its numbers
SECTIONS = {
    ("README.md", "Speed"): ["speed", "speed-amx", "gpu"],
    ("speed.md", "On two CPU cores"): ["speed", "speed-amx", "profile"],
    ("speed.md", "Beside torchax"): ["torchax"],
    ("speed.md", "The start of the command line"): ["start"],
    ("speed.md", "On a GPU"): ["gpu"],
    ("speed.md", "Embedding"): ["embed"],
    ("speed.md", "Loading"): ["load"],
    ("study.md", "What came out so far"): ["study/study", "study/one_rate"],
    ("without_training.md", "From Python"): ["search"],
    ("without_training.md", "What to expect"): ["features-digits", "features-fashion_mnist", "probe"],
    ("plan.md", "Against XLA"): ["plan"],
    ("families.md", "The families, and how far they differ from their own library"): ["parity"],
    ("guarantees.md", "Faults, counted"): ["fault_matrix"],
    ("guarantees.md", "The same faults in transformers' FlaxViT"): ["faults"],
}
# Numbers of these sections that nobody measured, with the reason.
CHOSEN = {
    ("speed.md", "The start of the command line"): {"1 GiB"},  # the bound of the cache, in the code
    ("speed.md", "Beside torchax"): {"2.13"},  # a version
    ("plan.md", "Against XLA"): {"1,024", "0.1 %", "15 %"},  # a width that was tried, and the bounds of `make scale`
    ("without_training.md", "What to expect"): {"1,437", "60,000", "10,000", "1,000"},  # images, and iterations
}
# Numbers outside of these sections, none of which is a result.
OUTSIDE = {
    "demo.md": {"20 MB"},  # the bound of a file
    "evaluate.md": {"70,000"},  # images
    "families.md": {"1.15"},  # the bound of a test of memory
    "first_look.md": {"1,797"},  # images
    "fine_tune.md": {"640 MB", "65,536"},  # the bounds of the memory to decode an image, and of its sides
    "guarantees.md": {"640 MB"},
    "own_loop.md": {"0.9"},  # the bound of a test, which runs the page
    "plan.md": {"1,000", "90 %"},  # classes, and the share of a device's memory that is planned with
    "scale.md": {"1.1", "0.6", "64 MiB", "60 s"},  # bounds of tests of memory, and JAX's heartbeat
    "study.md": {"0.2", "1.5"},  # million parameters
    "use.md": {"29 MB"},  # the file of a test
    "without_training.md": {"0.07"},  # the temperature of a vote
}
VERSIONS = {"2.60", "3.11", "3.13", "4.57", "6.17", "6.31"}
# The table with a column for each peer, which tests/test_speed_results.py compares cell by cell.
ELSEWHERE = ("speed.md", "On two CPU cores")

UNIT = r"(?: ?%| (?:s|seconds|minutes|MB|GB|GiB|MiB)\b)"
NUMBER = re.compile(rf"(?<![\w.,/=-])(?:\d{{1,3}}(?:,\d{{3}})+|\d+)(?:\.\d+)?(?:e[+-]\d+)?(?![\w/]|\.\d|,\d)({UNIT})?")
MEASURED = re.compile(r"[.,%]| [a-zA-Z]")  # outside of tables: "1e-5" is a bound, "12" a count
DATE = re.compile(r"\b20\d\d-\d\d-\d\d\b")
NO_NUMBER = re.compile(rf"`[^`]*`|\]\([^)]*\)|{DATE.pattern}|\b\d+\.\d+\.\d+\S*")  # code, links, dates, versions


def text_of(page: str) -> str:
    """A page without its blocks of code."""
    (file,) = [file for file in PAGES if file.name == page]
    return re.sub(r"^```.*?^```$", "", file.read_text(), flags=re.DOTALL | re.MULTILINE)


def below(page: str, heading: str) -> str:
    """The text below a heading, up to the next one."""
    return re.split(r"^#", text_of(page).partition(f"# {heading}\n")[2], flags=re.MULTILINE)[0]


def section(page: str, heading: str) -> str:
    """The same, without a table that another test compares."""
    text = below(page, heading)
    return re.sub(r"^\|.*$", "", text, flags=re.MULTILINE) if (page, heading) == ELSEWHERE else text


def numbers(text: str) -> list[str]:
    """All numbers of a text, with their units."""
    return [match[0] for match in NUMBER.finditer(NO_NUMBER.sub(" ", text))]


@cache
def value(number: str) -> tuple[Decimal, int]:
    """A number without its unit, and the exponent of its last digit."""
    found = Decimal(re.sub(rf"{UNIT}$|,", "", number))
    return found, int(found.as_tuple().exponent)


def is_rounded(written: str, measured: str) -> bool:
    """Whether a number is another one, rounded to the digits that it has. Both are percentages or neither is."""
    (short, step), (long, finer) = value(written), value(measured)
    is_close = step >= finer and 2 * abs(short - long) <= Decimal(1).scaleb(step)
    return is_close and ("%" in written) == ("%" in measured)


def is_part_of(row: list[str], measured: list[str]) -> bool:
    """Whether the numbers of a row are, in this order, among those of another one."""
    rest = iter(measured)
    return all(any(is_rounded(number, other) for other in rest) for number in row)


@cache
def results_of(place: tuple[str, str]) -> tuple[list[str], list[list[str]]]:
    """All numbers of the results of a section, and those of each row of their tables."""
    text = "\n".join((RESULTS / f"{name}.md").read_text() for name in SECTIONS[place])
    return numbers(text), [numbers(line) for line in text.splitlines() if line.startswith("|")]


def unknown(text: str, place: tuple[str, str]) -> list[str]:
    """Rows whose numbers are in no row of the results, and measured numbers outside of tables that are not there."""
    everything, rows = results_of(place)
    lines, chosen = text.splitlines(), CHOSEN.get(place, set())
    in_tables = [line for line in lines if line.startswith("|")]
    in_prose = numbers("\n".join(line for line in lines if line not in in_tables))
    measured = [number for number in in_prose if MEASURED.search(number) and number not in chosen]
    return [line for line in in_tables if not any(is_part_of(numbers(line), row) for row in rows)] + [
        number for number in measured if not any(is_rounded(number, other) for other in everything)
    ]


@pytest.mark.parametrize("place", SECTIONS, ids=" ".join)
def test_measured_numbers_are_those_of_the_results(place):
    text = section(*place)
    assert any(MEASURED.search(number) for number in numbers(text))
    assert unknown(text, place) == []


def test_changed_numbers_are_named():
    """The first digit of each number is changed in turn; few of the new numbers are, by chance, other results."""
    named = {place: [unknown(line, place) != [] for line in changed_lines(place)] for place in SECTIONS}
    assert all(any(outcomes) for outcomes in named.values())
    outcomes = [outcome for outcomes in named.values() for outcome in outcomes]
    assert len(outcomes) > 400
    assert sum(outcomes) > 0.95 * len(outcomes)


def changed_lines(place: tuple[str, str]) -> Iterator[str]:
    """Each line of a section once for each number that is compared, with another first digit of this number."""
    for line in section(*place).splitlines():
        blanked = NO_NUMBER.sub(lambda match: " " * len(match[0]), line)
        for match in NUMBER.finditer(blanked):
            is_compared = line.startswith("|") or MEASURED.search(match[0])
            if is_compared and match[0] not in CHOSEN.get(place, set()):
                yield f"{line[: match.start()]}{(int(match[0][0]) + 5) % 10}{line[match.start() + 1 :]}"


@pytest.mark.parametrize("page", [page.name for page in PAGES])
def test_no_measured_number_is_outside_of_these_sections(page):
    outside = text_of(page)
    for place in SECTIONS:
        if place[0] == page:
            outside = outside.replace(below(*place), "")
    others = [number for number in numbers(outside) if MEASURED.search(number) and number not in VERSIONS]
    assert set(others) == OUTSIDE.get(page, set())

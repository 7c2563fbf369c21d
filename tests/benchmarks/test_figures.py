"""What a reader of RESULTS.md sees: figures, verdicts, and pictures that are whole."""

from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest

from tests.benchmarks import plots, report
from tests.benchmarks.bench import Options
from tests.benchmarks.contenders import ALL
from tests.benchmarks.figures import Figure, Goal, Section, number, share

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (0.1234, "0.12"), (9.994, "9.99"), (12.34, "12.3"), (123.4, "123"), (45678.9, "45,679")],
)
def test_a_number_shows_the_digits_that_matter(value, shown):
    assert number(value) == shown


def test_the_median_speaks_and_the_spread_stands_beside_it():
    assert Figure.of([3, 1, 2], "/s").full == "2.00 /s (1.00 to 3.00)"


def test_a_goal_knows_its_direction():
    assert Goal("direct", 10, 10).met
    assert not Goal("direct", 10, 9.99).met
    assert Goal("direct's p50", 1.25, 1.25, at_least=False).met
    assert not Goal("direct's p50", 1.25, 1.26, at_least=False).met
    assert share("of the limit", 0.6, 0.641).gets == "64.1 %"


def test_a_missed_goal_and_a_failed_row_are_told_in_the_summary():
    missed = Section(1, "PATCH to 200", goals=[Goal("direct", 10, 8)])
    failed = Section(2, "More clients", failure="an edit\nwas lost")
    text = report.render([missed, failed], [("processor", "a | b")], Options(rows=[1, 2]), "abc1234")
    assert "| 1 | PATCH to 200 | >= 10x direct | 8.00x | **no** |" in text
    assert "**failed**: an edit was lost" in text
    assert "a \\| b" in text


def test_a_short_run_calls_itself_preliminary():
    assert "Preliminary" in report.render([], [], Options(rows=[1], rounds=2), "")
    assert "Preliminary" not in report.render([], [], Options(rows=[1], rounds=3, seconds=10), "")


@pytest.mark.parametrize(
    "drawn",
    [
        plots.throughput(
            {one.name: [(1, 100), (16, 400 + place), (256, 390)] for place, one in enumerate(ALL)}, "A & B"
        ),
        plots.latencies(
            {"Redraft": [(50, 1.0), (99, 4.0), (99.9, 9.0), (100, 400.0)], "direct": [(50, 9), (99, 90)]}, "L"
        ),
        plots.by_size({"Redraft": [3000.0, 2900.0]}, ["few", "many"], "edits a second", "S"),
        plots.over_time({"api": [(0, 90.0), (5, 91.0)], "beat": [(0, 60.0), (5, 60.0)]}, "MiB", "M"),
    ],
)
def test_a_picture_is_whole_and_inside_its_frame(drawn):
    root = ET.fromstring(drawn)  # noqa: S314 - our own text
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    lines = root.findall(f"{SVG}polyline")
    assert lines
    for line in lines:
        for point in line.attrib["points"].split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= width
            assert 0 <= y <= height
    names = [
        (float(name.attrib["y"]), name.text)
        for name in root.findall(f"{SVG}text[@class]")
        if "name" in name.attrib["class"]
    ]
    assert len(names) == len(lines)
    heights = sorted(y for y, _ in names)
    assert all(below - above >= 10 for above, below in pairwise(heights))
    assert "prefers-color-scheme:dark" in drawn

"""What a bench makes of its recordings: the look while it runs, the notes, the drawings."""

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.bench.html_report import render
from server.bench.live_view import live_lines, plain_line, sparkline
from server.bench.plots import (
    Axis,
    Series,
    format_number,
    linear_axis,
    log_axis,
    plot,
    share_axis,
)
from server.bench.progress import Progress
from server.bench.result import (
    Asked,
    BenchResult,
    Machine,
    ServerFacts,
    level_of,
    notes_on,
)
from server.cpu import CpuUse
from server.question import Ending, Outcome
from server.recording import Recording

MACHINE = Machine(cpu="a <fast> one", num_cores=4, system="Linux", python="3.11")
OK = b"HTTP/1.1 200 OK\r\n\r\n"
EVENT = b"data: {}\n\n"


def cpu(own_s=0.1, other_s=0.5):
    return CpuUse(wall_s=1.0, own_s=own_s, server_s=None, other_s=other_s)


def answered(*times, num_tokens=None):
    return Outcome(
        ending=Ending.ANSWERED,
        due=0.0,
        sent=0.0,
        token_times=times,
        end=times[-1],
        num_tokens=len(times) if num_tokens is None else num_tokens,
    )


def level(*outcomes, num_clients=1, use=None, num_output_tokens=2):
    return level_of(num_clients, outcomes, use or cpu(), num_output_tokens)


def result(*levels, notes=()):
    return BenchResult(
        millrace="1",
        command="millrace bench",
        began_at="2026-01-02T03:04:05+00:00",
        is_complete=True,
        machine=MACHINE,
        server=ServerFacts(url="http://a", model=None, device=None, dtype=None, version=None),
        asked=Asked(
            dialect="tgi",
            model="m",
            num_prompt_words=1,
            num_output_tokens=2,
            may_stop=False,
            seed=1,
        ),
        levels=levels,
        notes=notes,
    )


# The look while it runs


def test_each_look_counts_what_came_since_the_last():
    recordings = []
    progress = Progress(4, recordings, 0.0)
    assert progress.look(1.0).num_running == 0
    first = Recording(0.5, 0.5, reads=[(0.75, OK + EVENT), (1.0, b": a comment\n\n")])
    recordings.append(first)
    now = progress.look(2.0)
    assert (now.num_running, now.num_done, now.tokens_per_s) == (1, 0, 1.0)
    assert (now.first_token_ms.p50, now.gap_ms) == (250.0, None)
    first.reads += [(1.25, EVENT * 2), (1.75, EVENT)]
    first.is_ended = True
    recordings.append(Recording(2.0, 2.0))
    now = progress.look(4.0)
    assert (now.num_running, now.num_done, now.tokens_per_s) == (1, 1, 1.5)
    assert (now.gap_ms.p50, now.gap_ms.max) == (500.0, 500.0)
    assert now.pace == (0.0, 1.0, 1.5)
    assert progress.look(5.0).tokens_per_s == 0.0


def test_refused_and_failed_requests_are_told_apart():
    ended = [
        Recording(0.0, reads=[(1.0, OK)], is_ended=True),
        Recording(0.0, reads=[(1.0, b"HTTP/1.1 429 Too Many\r\n")], is_ended=True),
        Recording(0.0, reads=[(1.0, b"HTTP/1.1 500 No\r\n")], is_ended=True),
        Recording(0.0, reads=[(1.0, OK)], failure="no end after 1 s", is_ended=True),
        Recording(0.0, is_ended=True),
    ]
    now = Progress(5, ended, 0.0).look(2.0)
    assert (now.num_done, now.num_refused, now.num_failed, now.num_running) == (5, 1, 3, 0)


def test_a_look_is_written_as_lines():
    recordings = [Recording(0.0, reads=[(1.0, OK + EVENT), (1.5, EVENT)], is_ended=True)]
    now = Progress(2, recordings, 0.0).look(2.0)
    first, second, third = live_lines("3 clients", now)
    assert first == (
        "     3 clients  ████████████░░░░░░░░░░░░  1 of 2 done, 0 running, 0 failed, 0 refused"
    )
    assert second == "    1 tokens/s  █"
    assert third == "   first token  p50 1000.0 ms  p99 1000.0 ms   gap  p50 500.0 ms  p99 500.0 ms"
    assert plain_line("3 clients", now) == (
        "3 clients: 1 of 2 done, 0 running, 0 failed, 0 refused; 1 tokens/s"
    )


def test_a_sparkline_has_the_highest_value_at_its_top():
    assert sparkline([0, 1, 4, 8]) == "▁▂▅█"
    assert sparkline([0, 0]) == "▁▁"
    assert sparkline([]) == ""


# What a reader must be told


def test_a_load_generator_that_was_busy_may_have_been_the_limit():
    (note,) = notes_on([level(answered(1.0, 2.0), use=cpu(0.95))], MACHINE, is_complete=True)
    assert note.startswith("With 1 client, the load generator itself kept 95 % of a core busy")
    assert "may have been the limit" in note


def test_a_machine_whose_cores_were_all_busy_is_told():
    use = cpu(0.2, 3.7)
    (note,) = notes_on(
        [level(answered(1.0, 2.0), num_clients=3, use=use)], MACHINE, is_complete=True
    )
    assert note.startswith("With 3 clients, all 4 cores of this machine were busy")
    assert "20 % of a core" in note


def test_a_good_run_needs_no_note_and_says_so():
    good = level(answered(1.0, 2.0))
    assert notes_on([good], MACHINE, is_complete=True) == ()
    assert "All 1 requests were answered as asked." in render(result(good))


def test_notes_stand_in_the_report_instead():
    text = render(result(level(answered(1.0, 2.0)), notes=("Mind <this>",)))
    assert "<li>Mind &lt;this&gt;</li>" in text
    assert "answered as asked" not in text


def test_a_level_has_its_distributions_and_counts_short_answers():
    found = level(answered(0.01, 0.03), answered(0.02, num_tokens=1))
    assert found.num_short == 1
    assert (found.first_token_ms[0], found.first_token_ms[-1]) == (10.0, 20.0)
    assert set(found.gap_ms) == {20.0}
    failed = Outcome(ending=Ending.FAILED, due=0.0, sent=0.0, error="boom")
    assert level(failed).first_token_ms == level(failed).gap_ms == ()


# The drawings


def test_a_report_is_one_document_that_names_no_other_place():
    levels = [level(answered(0.0, 0.0), answered(0.01, 0.5), num_clients=n) for n in (1, 2, 64)]
    text = render(result(*levels))
    assert not re.search(r"(?:src|href)=\"(?!data:,)", text)
    assert not re.search(r"@import|url\(|<script|http://(?!a<)", text)
    assert "default-src 'none'" in text
    assert "a &lt;fast&gt; one" in text
    for drawing in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        ElementTree.fromstring(drawing)


def test_levels_without_an_answer_have_no_place_in_the_plots_of_time():
    failed = Outcome(ending=Ending.FAILED, due=0.0, sent=0.0, error="boom")
    text = render(result(level(answered(0.1, 0.2)), level(failed, num_clients=2)))
    assert text.count("<figure>") == 4
    assert "<figure>" not in render(result(level(failed)))


def test_answers_of_one_token_have_no_plot_of_gaps():
    assert render(result(level(answered(0.1)))).count("<figure>") == 3


@given(st.floats(1e-5, 1e9))
def test_a_linear_axis_goes_from_0_to_a_round_number_in_few_steps(high):
    axis = linear_axis("x", high)
    assert axis.low == 0
    assert axis.high >= high * (1 - 1e-9)
    assert 2 <= len(axis.ticks) <= 7
    assert f"{axis.ticks[1]:e}"[0] in "125"


@given(st.floats(0.01, 1e6), st.floats(1, 1e6))
def test_a_log_axis_holds_both_its_ends_and_a_few_marks(low, factor):
    axis = log_axis("x", low, low * factor)
    assert axis.low <= low
    assert axis.high >= low * factor
    assert 2 <= len(axis.ticks) <= 13
    assert all(axis.low <= tick <= axis.high for tick in axis.ticks)
    assert axis.place(axis.low) == 0
    assert axis.place(axis.high) == pytest.approx(1)
    assert axis.place(0) == 0


def test_points_lie_where_the_axes_say():
    text = plot(
        plot_id="p",
        title="a < b",
        description="told",
        x=Axis(label="x", low=1.0, high=4.0, ticks=(1.0, 2.0, 4.0), is_log=True),
        y=share_axis("y"),
        series=[Series("s", ((1.0, 0.0), (2.0, 50.0), (4.0, 100.0)))],
        has_points=True,
    )
    drawing = ElementTree.fromstring(text)
    points = [(float(c.get("cx")), float(c.get("cy"))) for c in drawing.iter("circle")]
    (ax, ay), (bx, by), (cx, cy) = points
    assert (bx, by) == pytest.approx(((ax + cx) / 2, (ay + cy) / 2), abs=0.1)
    assert ax < cx
    assert ay > cy
    assert [title.text for title in drawing.iter("title")][:2] == ["a < b", "s: 0 at 1"]


def test_numbers_are_written_with_the_digits_their_size_needs():
    numbers = (0, 0.01234, 1.234, 12.34, 123.4, 12345.6)
    assert [format_number(n) for n in numbers] == ["0", "0.0123", "1.23", "12.3", "123", "12,346"]

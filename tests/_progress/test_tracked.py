"""Counting, pace and tqdm's methods of a tracked iterable."""

import pytest

from boltax._progress._tracked import NoDisplay, Pace, Tracked


def tracked(items, **kwargs):
    return Tracked(items, NoDisplay, **kwargs)


def test_counts_items_once_their_body_is_done():
    seen = [bar.count for bar in [tracked("abc")] for _ in bar]
    assert seen == [0, 1, 2]


def test_gives_the_items_in_order_and_again():
    bar = tracked([3, 1, 2])
    assert list(bar) == [3, 1, 2]
    assert list(bar) == [3, 1, 2]
    assert bar.count == 3


def test_initial_items_count_as_done():
    bar = tracked(range(6, 11), total=10, initial=5)
    assert list(bar) == [6, 7, 8, 9, 10]
    assert bar.count == 10


def test_a_break_after_the_metrics_of_an_item_counts_it():
    bar = tracked(range(5))
    for item in bar:
        bar.set_metrics({"loss": 0.1})
        if item == 1:
            break
    assert bar.count == 2


def test_a_break_before_the_metrics_of_an_item_does_not_count_it():
    bar = tracked(range(5))
    for item in bar:
        if item == 1:
            break
        bar.set_metrics({"loss": 0.1})
    assert bar.count == 1


def test_an_exception_ends_the_display():
    ended = []

    class Noting(NoDisplay):
        def finish(self, bar):
            ended.append(bar)

    bar = Tracked(range(5), Noting)
    with pytest.raises(ZeroDivisionError, match="zero"):
        sum(1 / item for item in bar)
    assert ended == [bar]


def test_takes_the_calls_of_tqdm():
    for _ in (bar := tracked(range(2), desc="old")):
        bar.set_postfix({"loss": 1.0}, refresh=False, acc=0.5)
        bar.set_description("new")
    assert bar.metrics == {"loss": 1.0, "acc": 0.5}
    assert bar.desc == "new"


def test_update_counts_without_iteration_until_closed():
    bar = tracked([], total=10)
    bar.update()
    bar.update(4)
    assert bar.count == 5
    bar.close()
    bar.close()


def test_pace_leaves_the_first_item_out():
    pace = Pace()
    for now, count in [(0.0, 0), (20.0, 1), (21.0, 2), (22.0, 3)]:  # the first one compiles
        pace.sample(now, count, 32 * count)
    assert pace.rates() == (1.0, 32.0)
    assert pace.seconds_left(22.5, 10) == pytest.approx(6.5)


def test_pace_follows_the_last_half_minute():
    pace = Pace()
    for now in range(100):  # one a second
        pace.sample(float(now), now, 0)
    for now in range(100, 200):  # ten a second
        pace.sample(float(now), 100 + 10 * (now - 99), 0)
    items, _ = pace.rates()
    assert items == pytest.approx(10, rel=0.01)


def test_pace_of_something_that_rests_is_that_of_before():
    pace = Pace()
    for now in (0.0, 1.0, 2.0, 50.0, 90.0):
        pace.sample(now, min(int(now), 2), 0)
    assert pace.rates() == (1.0, 0.0)
    assert pace.seconds_left(90.0, 3) == 0.0


def test_pace_is_unknown_at_first_and_without_total():
    pace = Pace()
    pace.sample(0.0, 0, 0)
    assert pace.rates() is None
    assert pace.seconds_left(1.0, 10) is None
    pace.sample(1.0, 1, 0)
    assert pace.seconds_left(1.0, None) is None

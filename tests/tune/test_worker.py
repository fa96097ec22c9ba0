"""Workers that share a study: none of its trials is lost, and none is run twice.

``BOLTAX_TEST_DATABASE="postgresql://user@127.0.0.1/studies mysql+pymysql://..."`` has them share it
in these databases too, which have to exist.
"""

import secrets
import warnings

import optuna
import pytest
from optuna.trial import TrialState

from boltax.tune._space import SearchSpace
from boltax.tune._storage import open_storage
from boltax.tune._worker import MOST_ATTEMPTS, REASON, RETRY_OF, SURPLUS, Worker, counting
from tune_dummies import DATABASES


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture(params=["study.journal", "sqlite:///study.db", *DATABASES])
def join(request):
    """A new process' view of one study, as a worker of it."""
    name = f"mine-{secrets.token_hex(6)}"  # a database outlives the test

    opened = []

    def new(n_trials=4, clock=None):
        opened.append(open_storage(request.param))
        study = optuna.create_study(storage=opened[-1], study_name=name, load_if_exists=True)
        space = SearchSpace({"x": (0.0, 1.0)})
        worker = Worker(study, space, n_trials=n_trials, interval=1.0, clock=clock or Clock())
        worker.study = study
        worker.give_sign()
        return worker

    yield new
    if request.param in DATABASES:
        optuna.delete_study(storage=opened[0], study_name=name)
        for storage in opened:
            storage.engine.dispose()


def states(worker):
    return [trial.state.name for trial in worker.study.trials]


def test_workers_share_the_trials_of_a_study(join):
    one, two = join(), join()
    asked = [worker.ask() for worker in (one, two, one, two)]
    assert [trial.number for trial in asked] == [0, 1, 2, 3]
    assert one.ask() is None
    assert not two.is_study_over()
    for trial, worker in zip(asked, (one, two, one, two), strict=True):
        worker.end(trial, 0.5, {})
    assert two.is_study_over()
    assert states(one) == ["COMPLETE"] * 4


def test_trials_of_a_dead_worker_are_taken_up_with_their_hyperparameters(join):
    clock = Clock()
    dead, other = join(), join(clock=clock)
    lost = dead.ask()
    other.take_up_lost()
    clock.now += 6.5  # six intervals without a sign
    other.take_up_lost()
    again = other.ask()
    assert again.params == lost.params
    assert again.user_attrs[RETRY_OF] == lost.number
    assert "no sign of life" in again.user_attrs[REASON]
    other.end(again, 0.5, {})
    assert states(other) == ["FAIL", "COMPLETE"]
    assert [trial.number for trial in counting(other.study.trials)] == [again.number]


def test_a_worker_that_gives_signs_keeps_its_trials(join):
    clock = Clock()
    alive, other = join(), join(clock=clock)
    alive.ask()
    for _ in range(20):
        clock.now += 4
        alive.give_sign()
        other.take_up_lost()
    assert states(other) == ["RUNNING"]


def test_only_one_of_two_workers_takes_a_trial_up(join):
    clock = Clock()
    dead, one, two = join(), join(clock=clock), join(clock=clock)
    dead.ask()
    seen = one.study.get_trials(deepcopy=True)[0]
    one._put_back(seen, "lost", is_attempt=True)
    two._put_back(seen, "lost", is_attempt=True)
    assert states(two) == ["FAIL", "WAITING"]


def test_a_worker_that_was_taken_for_dead_leaves_its_trial_to_the_other(join):
    clock = Clock()
    slow, other = join(), join(clock=clock)
    trial = slow.ask()
    other.take_up_lost()
    clock.now += 7
    other.take_up_lost()
    assert "another worker" in slow.report(trial, 0.5, 1)
    slow.end(trial, 0.5, {})
    assert states(other) == ["FAIL", "WAITING"]


def test_a_trial_that_takes_its_workers_with_it_fails_in_the_end(join):
    for _ in range(MOST_ATTEMPTS):
        clock = Clock()
        dead, other = join(n_trials=1), join(n_trials=1, clock=clock)
        assert dead.ask() is not None
        other.take_up_lost()
        clock.now += 7
        other.take_up_lost()
    assert states(other) == ["FAIL"] * MOST_ATTEMPTS
    assert other.ask() is None
    assert other.is_study_over()


def test_a_trial_too_many_is_not_run(join):
    one, two = join(n_trials=1), join(n_trials=1)
    before = two._trials()  # both look before either asks
    kept = one.ask()
    looked, original = iter([before]), two._trials
    two._trials = lambda: next(looked, None) if looked.__length_hint__() else original()
    assert two.ask() is None
    assert SURPLUS in two.study.trials[1].user_attrs
    one.end(kept, 0.5, {})
    assert two.is_study_over()
    assert len(counting(two.study.trials)) == 1


@pytest.mark.parametrize("error", [None, KeyboardInterrupt(), ValueError("wrong")])
def test_a_worker_that_leaves_puts_its_trials_back(join, error):
    worker = join()
    try:
        with worker:
            worker.ask()
            if error:
                raise error
    except (KeyboardInterrupt, ValueError) as caught:
        assert caught is error  # noqa: PT017
    again = join().ask()
    assert again.user_attrs[RETRY_OF] == 0
    assert again.user_attrs["boltax:attempts"] == (1 if isinstance(error, ValueError) else 0)


def test_trials_of_others_who_use_optuna_are_left_alone(join):
    clock = Clock()
    worker = join(clock=clock)
    foreign = worker.study.ask({"x": optuna.distributions.FloatDistribution(0, 1)})
    worker.take_up_lost()
    clock.now += 100
    worker.take_up_lost()
    assert worker.study.trials[foreign.number].state is TrialState.RUNNING


def test_enqueued_trials_come_first(join):
    worker = join()
    worker.study.enqueue_trial({"x": 0.125})
    assert worker.ask().params == {"x": 0.125}


def test_signs_of_life_are_given_while_a_worker_is_at_work(join):
    worker = join()
    worker._interval = 0.01
    with worker, warnings.catch_warnings():
        worker._is_over.wait(0.2)
    (sign,) = (v for n, v in worker.study.user_attrs.items() if n.endswith(worker.name))
    assert sign[0] > 2

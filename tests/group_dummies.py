"""Processes of a job for tests: threads in their place, and a board in the memory of them all."""

import threading
from concurrent.futures import ThreadPoolExecutor

import jax

from boltax.parallel._coordination import Board
from boltax.parallel._group import Group


class Store:
    """The store of `jax.distributed`, in a dict."""

    def __init__(self):
        self.texts, self.changed = {}, threading.Condition()

    def key_value_set(self, name, value, allow_overwrite=False):
        with self.changed:
            if name in self.texts and not allow_overwrite:
                raise jax.errors.JaxRuntimeError("ALREADY_EXISTS")
            self.texts[name] = value
            self.changed.notify_all()

    def blocking_key_value_get(self, name, timeout_in_ms):
        with self.changed:
            if not self.changed.wait_for(lambda: name in self.texts, timeout_in_ms / 1000):
                raise jax.errors.JaxRuntimeError("DEADLINE_EXCEEDED: no such name")
            return self.texts[name]

    def key_value_try_get(self, name):
        return self.blocking_key_value_get(name, 0)

    def key_value_delete(self, name):
        with self.changed:
            self.texts = {n: text for n, text in self.texts.items() if not n.startswith(name + "/")}


def in_each(store, act, count=3):
    """What each of so many processes gets, an exception as it is."""

    def one(index):
        try:
            return act(Group(index, count, Board(store)))
        except Exception as error:  # noqa: BLE001 - compared by the tests
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))

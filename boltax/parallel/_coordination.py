"""The notice board that the processes of a job share: short texts under names.

It is the store of `jax.distributed`, which stands in the memory of the first process. Asking it
needs no device, so threads may do so beside a step, and every wait ends. The only file that reaches
for what JAX does not make public: it has no other way to say something to another process.
"""

import contextlib
import json
import time
from typing import Any, cast, final

import jax

from boltax.errors import ProcessError

WAIT_SECONDS = 600.0
"""How long a process waits for another one that does not answer: compiling a large model takes
minutes, and so does reading a checkpoint."""
_SLICE = 2.0
_FAILED, _LEAVES, _AT = "boltax/failed", "boltax/leaves", "boltax/at"


@final
class Board:
    """Texts that all processes of a job see.

    Args:
        client: that of `jax.distributed`.
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    def write(self, name: str, value: Any) -> None:
        """Writes plain JSON under a name that nobody has used."""
        self._client.key_value_set(name, json.dumps(value))

    def read(self, name: str, of: int, what: str, seconds: float) -> Any:
        """Waits for what a process writes.

        Args:
            name: where it is written.
            of: the number of the process.
            what: what is waited for, in words.
            seconds: how long at most.

        Raises:
            ProcessError: when it has failed meanwhile, or does not come in time.
        """
        until = time.monotonic() + seconds
        while True:
            left = until - time.monotonic()
            try:
                wait = max(1, int(1000 * min(_SLICE, left)))
                return json.loads(self._client.blocking_key_value_get(name, wait))
            except jax.errors.JaxRuntimeError as error:
                if "DEADLINE_EXCEEDED" not in str(error):
                    raise ProcessError(
                        f"Received no answer from the first process for {what} "
                        f"({str(error).splitlines()[0][:200]}); expected it to run. It has ended: "
                        "start the job again, with resume=True."
                    ) from error
            if (failure := self.failure()) is not None:
                raise ProcessError(told(failure))
            if left <= 0:
                raise ProcessError(
                    f"Received no word of process {of} for {what} within {seconds:.0f} s; expected "
                    "every process of the job to come there. Look at its output, and at the "
                    "machine on which it runs; all processes must run the same program."
                )

    def forget(self, name: str) -> None:
        """Removes what is written below a name."""
        self._client.key_value_delete(name)

    def fail(self, index: int, text: str) -> None:
        """Says that this process has failed, for all others to leave; the first one counts."""
        with contextlib.suppress(jax.errors.JaxRuntimeError):  # another one was first
            self._client.key_value_set(_FAILED, json.dumps([index, text[:2000]]))

    def leave(self, index: int) -> None:
        """Says that this process, which has failed, is about to end."""
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            self._client.key_value_set(f"{_LEAVES}/{index}", "")

    def wait_for_leaving(self, index: int, seconds: float) -> None:
        """Waits until a process that has failed is about to end."""
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            self._client.blocking_key_value_get(f"{_LEAVES}/{index}", int(1000 * seconds))

    def note(self, index: int, where: str) -> None:
        """Says where this process is, in place of what it said before."""
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            self._client.key_value_set(f"{_AT}/{index}", where, allow_overwrite=True)

    def noted(self, index: int) -> str:
        """Where a process is."""
        try:
            return str(self._client.key_value_try_get(f"{_AT}/{index}"))
        except jax.errors.JaxRuntimeError:
            return "its start"

    def failure(self) -> tuple[int, str] | None:
        """Which process has failed, and why; None for none."""
        try:
            index, text = json.loads(self._client.key_value_try_get(_FAILED))
        except jax.errors.JaxRuntimeError:
            return None
        return int(index), str(text)


def told(failure: tuple[int, str]) -> str:
    """A failure of another process, in words."""
    index, text = failure
    if index < 0:
        return (
            f"Received a run that stands still ({text}); expected steps. Look at the process that "
            "is behind the others; start all of them again, with resume=True."
        )
    return (
        f"Received the end of process {index}, which failed: {text}; expected all processes of the "
        "job to go on. Start all of them again, with resume=True, when that is mended."
    )


def board() -> Board | None:
    """The board of the job; None for a process alone."""
    from jax._src import distributed  # has no public name

    client: Any = cast("Any", distributed).global_state.client
    return None if client is None else Board(client)

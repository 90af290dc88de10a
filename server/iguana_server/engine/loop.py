"""The engine: one plain thread that owns the models, and the turn it takes over and over.

A turn: let rows in, show them to each model (one gradient pass and one forward pass of at
most `max_batch` rows), let finished rows out. Jobs are cancelled, expire and join between
two turns, so they never wait for more than a step.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import aclosing

import torch

from iguana_server.engine.answer import Answer, Event, Progress
from iguana_server.engine.bench import Bench, give_up
from iguana_server.engine.job import Job
from iguana_server.engine.meter import Meter, Silent
from iguana_server.engine.press import Press
from iguana_server.engine.queue import Queue
from iguana_server.errors import InternalError, Overloaded, ServeError, Unavailable
from iguana_server.models.base import Model
from iguana_server.synthesis.base import Network

_log = logging.getLogger(__name__)
_IDLE_S = 0.5  # between two beats of an idle engine
_STOP_S = 3.0  # for the turn that runs to end


class Engine:
    """Runs jobs on models, from start() to stop(), or as a context manager."""

    def __init__(
        self,
        models: Mapping[str, Model],
        networks: Iterable[Network] = (),
        *,
        max_cost: int = 1 << 34,
        max_rows: int = 1024,
        meter: Meter | None = None,
        on_failure: Callable[[], None] | None = None,
    ) -> None:
        """Own these models, and networks that map rows; all names are different.

        max_cost bounds the waiting work (rows x steps x pixels), max_rows the attacked rows in
        flight on a model. on_failure is called in the engine's thread if it dies of a defect.
        """
        self.models = models
        self.failed = False
        self._meter = meter or Silent()
        self._on_failure = on_failure or (lambda: None)
        self._queue = Queue(max_cost)
        self._benches: list[Bench | Press] = [
            *(Bench(model, max_rows, self._meter) for model in models.values()),
            *(Press(network, max_rows, self._meter) for network in networks),
        ]
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._begun = threading.Event()
        self._stopping = False
        self._beaten = time.monotonic()
        self._open: set[Job] = set()

    def __enter__(self) -> Engine:
        """Start."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.stop()

    @property
    def meter(self) -> Meter:
        """Who hears of the work."""
        return self._meter

    @property
    def beat_age_s(self) -> float:
        """Seconds since the last sign of life: one a model and turn, and two a second when idle."""
        return time.monotonic() - self._beaten

    def start(self) -> None:
        """Start the thread; passes run with the number of torch threads that is set now."""
        self._beaten = time.monotonic()
        self._thread.start()
        self._begun.wait()

    def stop(self, timeout_s: float = _STOP_S) -> bool:
        """Tell whoever still waits Unavailable, and end the thread at the next turn.

        Says whether the thread has ended within timeout_s. One that has not hangs in a model,
        where nothing can end it but the end of the process.
        """
        self._stopping = True
        stopping = Unavailable("the server is stopping")
        self._end(stopping, stopping)
        self._queue.wake()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    async def stream(self, job: Job) -> AsyncGenerator[Event]:
        """Run a job and yield what happens to it. Leaving early cancels it.

        Raises InvalidArgument or Overloaded where it cannot be queued, Unavailable where
        the engine is stopping, DeadlineExceeded, and InternalError where it has failed.
        """
        self._open.add(job)
        try:
            self._queue.put(job)
            async for event in job.events():
                yield event
        except Overloaded:
            self._meter.refused(job.method, "QUEUE_FULL")
            raise
        finally:
            self._open.discard(job)
            if job.pending:
                job.cancelled = True
                self._queue.wake()

    async def run(self, job: Job) -> list[Answer]:
        """Run a job and return its answers in the order of its samples; see stream."""
        answers: list[Answer] = []
        async with aclosing(self.stream(job)) as events:
            async for event in events:
                if not isinstance(event, Progress):
                    answers.append(event)
        return sorted(answers, key=lambda answer: answer.sample)

    # --- the engine's thread -----------------------------------------------------------

    def _run(self) -> None:
        torch.get_num_threads()  # a thread takes over torch's number when it first asks
        self._begun.set()
        try:
            while not self._stopping:
                self._beat()
                if not self._turn():
                    self._queue.wait(_IDLE_S)
        except Exception:
            self.failed = True
            _log.exception("the engine has failed")
            self._end(InternalError("the engine has failed"), Unavailable("the engine has failed"))
            self._on_failure()

    def _beat(self) -> None:
        self._beaten = time.monotonic()
        self._meter.beat()

    def _turn(self) -> bool:
        """Let in, look, let out; says whether there was anything to do."""
        begun, left = time.monotonic(), {}
        for bench in self._benches:
            self._beat()
            now = time.monotonic()
            for job in self._queue.drop_dead(now):  # again for each: another model's passes take their time
                give_up(job, self._meter)
            bench.admit(self._queue, now)
            working = bool(bench.rows())
            cost = bench.turn()
            if working or cost:
                left[bench.name] = cost
        self._meter.queue(self._queue.cost)
        self._queue.done(left, time.monotonic() - begun)
        return bool(left)

    def _end(self, error: ServeError, later: ServeError) -> None:
        """Tell all who wait, and whoever comes after."""
        self._queue.close(later)
        for job in list(self._open):
            job.fail(error)

"""A job: the rows of one request."""

from __future__ import annotations

import asyncio
import math
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from iguana_server.attacks.base import Attack
from iguana_server.detectors.watch import Watch
from iguana_server.engine.answer import Event, Forged, Progress
from iguana_server.engine.row import Row, Stage
from iguana_server.engine.tries import Tries
from iguana_server.errors import ServeError


class Job(ABC):
    """One request: where it comes from, when it must be done, and where its answers go.

    Made on the event loop; the engine's thread calls `rows`, `post` and `fail`; the
    caller reads `events`.
    """

    def __init__(
        self,
        images: Tensor,
        *,
        method: str,
        model: str,
        caller: str,
        strict: bool = True,
        deadline: float | None = None,
        span: object = None,
    ) -> None:
        """Take images [n, C, H, W] in [0, 1], or what else its rows are; `deadline` is on the clock of time.monotonic."""
        self.images = images
        self.method, self.model, self.caller, self.strict = method, model, caller, strict
        self.deadline, self.span = deadline, span
        self.arrived = time.monotonic()
        self.features = False  # its rows are asked for their features
        self.watch: Watch | None = None  # detectors that watch its rows; the same for all rows of a lane
        self.started = False  # a row has reached the device
        self.cancelled = False  # the caller has left
        self.closed = False  # given up, and counted as such
        self.pending = len(images)  # samples whose answer was not read yet
        self._error: ServeError | None = None
        self._loop = asyncio.get_running_loop()
        self._ready = asyncio.Event()
        self._answers: list[Event] = []
        self._progress: dict[int, Progress] = {}

    @property
    def pixels(self) -> int:
        """Numbers in one image."""
        return self.images[0].numel()

    @property
    def looks(self) -> int:
        """Pictures that the model sees in one look at a row."""
        return 1 if self.watch is None else self.watch.looks

    @property
    def look_cost(self) -> int:
        """Numbers in them."""
        return self.looks * self.pixels

    @property
    @abstractmethod
    def row_cost(self) -> int:
        """Steps x pixels of a row, at the mean."""

    @property
    def cost(self) -> int:
        """Rows x steps x pixels."""
        return self.row_cost * self.size

    @property
    @abstractmethod
    def size(self) -> int:
        """Rows."""

    @abstractmethod
    def rows(self) -> Iterable[Row]:
        """All rows, in the order they should start."""

    @property
    def dead(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.cancelled or self._error is not None

    def expired(self, now: float) -> bool:
        """Whether the deadline has passed."""
        return self.deadline is not None and now >= self.deadline

    @property
    def seated(self) -> bool:
        """Whether its rows need a place in a lane."""
        return False

    def late(self, now: float) -> bool:
        """Whether its time limit has passed: what is found by now is wanted."""
        return False

    def reports(self, moves: int) -> bool:
        """Whether a row that has made so many moves reports progress."""
        return False

    def settled(self, sample: int) -> bool:
        """Whether the sample has its answer, so that its other rows may leave."""
        return False

    def finish(self, forged: Forged) -> Forged | None:
        """Note the answer of one row; return the sample's, once it is certain."""
        return forged

    def post(self, events: Sequence[Event]) -> None:
        """Hand events to the reader. Progress that was not read yet is replaced by the newer."""
        self._tell(events)

    def fail(self, error: ServeError) -> None:
        """End the job with an error."""
        self._error = error
        self._tell(())

    async def events(self) -> AsyncIterator[Event]:
        """Progress and answers as they come, until every sample is answered; raises what the job failed with."""
        while self.pending:
            await self._ready.wait()
            self._ready.clear()
            if self._error is not None:
                raise type(self._error)(*self._error.args)  # one of its own: a traceback would hold the job
            news: list[Event] = [*self._progress.values(), *self._answers]
            self.pending -= len(self._answers)
            self._progress, self._answers = {}, []
            for event in news:
                yield event

    def _tell(self, events: Sequence[Event]) -> None:
        try:
            self._loop.call_soon_threadsafe(self._deliver, events)
        except RuntimeError:
            if not self._loop.is_closed():  # else nobody is there to be told
                raise

    def _deliver(self, events: Sequence[Event]) -> None:
        for event in events:
            if isinstance(event, Progress):
                self._progress[event.sample] = event
            else:
                self._progress.pop(event.sample, None)
                self._answers.append(event)
        self._ready.set()


class ClassifyJob(Job):
    """Images to be looked at once."""

    def __init__(
        self,
        images: Tensor,
        *,
        method: str,
        model: str,
        caller: str,
        strict: bool = True,
        deadline: float | None = None,
        span: object = None,
        features: bool = False,
    ) -> None:
        """Take images; with features, the answers have them; see Job."""
        super().__init__(
            images, method=method, model=model, caller=caller, strict=strict, deadline=deadline, span=span
        )
        self.features = features

    @property
    def row_cost(self) -> int:
        """One look."""
        return self.pixels

    @property
    def size(self) -> int:
        """One row a sample."""
        return len(self.images)

    def rows(self) -> Iterable[Row]:
        """One a sample."""
        return (Row(self, sample) for sample in range(len(self.images)))


@dataclass(kw_only=True)
class Plan:
    """What is wanted of an attack. Columns are [n], or images [n, C, H, W]: one value a sample."""

    attack: type[Attack]
    columns: dict[str, Tensor] = field(default_factory=dict)
    loss_name: str | None = None  # the attack's own
    on_grid: bool = True
    restarts: int = 1
    watch: Watch | None = None  # the detectors that the rows are to pass as well
    time_limit_s: float | None = None
    report_every: int = 0  # moves between two reports of a row; 0: none


class AttackJob(Job):
    """Images to be forged."""

    def __init__(
        self,
        images: Tensor,
        plan: Plan,
        *,
        method: str,
        model: str,
        caller: str,
        strict: bool = True,
        deadline: float | None = None,
        span: object = None,
        samples: Sequence[int] | None = None,
    ) -> None:
        """Take images and what is wanted of those samples, or of all; see Job."""
        super().__init__(
            images, method=method, model=model, caller=caller, strict=strict, deadline=deadline, span=span
        )
        self.plan, self.watch = plan, plan.watch
        self._limit = math.inf if plan.time_limit_s is None else self.arrived + plan.time_limit_s
        columns = plan.attack.columns().items()
        fills = {
            name: torch.full((len(images),), c.fill, dtype=c.dtype) for name, c in columns if c.shape == "row"
        }
        self._looks: list[int] = plan.attack.looks(fills | plan.columns).tolist()
        self._samples = range(len(images)) if samples is None else samples
        self.pending = len(self._samples)
        self._tries = {sample: Tries(plan.restarts) for sample in self._samples}

    @cached_property
    def row_cost(self) -> int:
        """Its moves."""
        return math.ceil(sum(self._looks[i] for i in self._samples) / len(self._samples)) * self.look_cost

    @property
    def size(self) -> int:
        """One row a try."""
        return len(self._samples) * self.plan.restarts

    @property
    def seated(self) -> bool:
        """All attacks' rows."""
        return True

    def late(self, now: float) -> bool:
        """Whether the plan's time limit has passed."""
        return now >= self._limit

    def rows(self) -> Iterable[Row]:
        """First tries first."""
        for restart in range(self.plan.restarts):
            for sample in self._samples:
                looks = self._looks[sample]
                yield Row(self, sample, restart, Stage.MOVE, looks, gradient=self.plan.attack.gradient)

    def table(self, rows: Sequence[Row], images: Tensor, classes: int) -> Attack:
        """Lay these rows (images [m, C, H, W]) out as a table; those that start off the image open first."""
        samples = torch.tensor([row.sample for row in rows])
        table = self.plan.attack.new(
            images,
            classes=classes,
            loss_name=self.plan.loss_name,
            on_grid=self.plan.on_grid,
            sample=samples,
            restart=torch.tensor([row.restart for row in rows]),
            **{name: column[samples] for name, column in self.plan.columns.items()},
        )
        for row, opens in zip(rows, table.opens().tolist(), strict=True):
            row.stage = Stage.OPEN if opens else Stage.MOVE
        return table

    def reports(self, moves: int) -> bool:
        """Every so many moves, as the plan says."""
        return self.plan.report_every > 0 and moves % self.plan.report_every == 0

    def settled(self, sample: int) -> bool:
        """Whether the sample has its answer, so that its other tries may leave."""
        return sample not in self._tries

    def finish(self, forged: Forged) -> Forged | None:
        """Note how one try ended; return the sample's answer, once it is certain.

        Which of the tries was quicker plays no part in it.
        """
        if self.settled(forged.sample):
            return None
        self._tries[forged.sample].add(forged)
        return self._settle(forged.sample)

    def skip(self, row: Row) -> Forged | None:
        """Do without a try that has not begun; return the sample's answer, once it is certain."""
        self._tries[row.sample].skip(row.restart)
        return self._settle(row.sample)

    def _settle(self, sample: int) -> Forged | None:
        answer = self._tries[sample].answer
        if answer is not None:
            del self._tries[sample]
        return answer

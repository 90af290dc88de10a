"""An attack is a table: fields are columns, rows are samples in flight.

A row never looks at another row, and the caller owns the loop: `begin`, `points`,
`observe`, `step`. Nothing here iterates, calls a model or knows a request.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self, dataclass_transform

import torch
from torch import Tensor

from iguana_server import ops
from iguana_server.attacks.losses import lead

FIRST_SUCCESS, MARGIN, NEVER = 1, 2, 3  # values of the column `stop`
_FRACTIONS = 1024  # of a grey level: how finely fractions are told apart

Kind = Literal["float", "int", "bool", "choice", "image"]
_DTYPES: dict[Kind, torch.dtype] = {
    "float": torch.float32,
    "int": torch.int64,
    "bool": torch.bool,
    "choice": torch.int64,
    "image": torch.float32,
}


@dataclass(frozen=True)
class Rule:
    """A default that follows from other parameters: in words, and of their columns [n]."""

    text: str
    of: Callable[[Mapping[str, Tensor]], Tensor]


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """What a caller may set: the default, the range that is checked, and the words that are served."""

    name: str
    kind: Kind
    low: float
    high: float
    default: float
    doc: str
    choices: tuple[str, ...] = ()
    rule: Rule | None = None  # tells the default for any values of the others


@dataclass(frozen=True, kw_only=True)
class Column:
    """How one column is stored: a number a row, or an image or a line of logits a row."""

    shape: Literal["row", "image", "logits"]
    dtype: torch.dtype
    fill: float  # the default
    parameter: Parameter | None = None


def param(
    default: float,
    *,
    low: float,
    high: float,
    doc: str,
    kind: Kind = "float",
    choices: tuple[str, ...] = (),
    rule: Rule | None = None,
) -> Any:
    """Declare a column that a caller may set, once or once a sample, within [low, high]."""
    parameter = Parameter(
        name="", kind=kind, low=low, high=high, default=default, doc=doc, choices=choices, rule=rule
    )
    shape: Literal["row", "image"] = "image" if kind == "image" else "row"
    return dataclasses.field(
        metadata={"column": Column(shape=shape, dtype=_DTYPES[kind], fill=default, parameter=parameter)}
    )


def state(
    shape: Literal["row", "image", "logits"] = "row", dtype: torch.dtype = torch.float32, fill: float = 0
) -> Any:
    """Declare a column that the algorithm keeps for itself."""
    return dataclasses.field(metadata={"column": Column(shape=shape, dtype=dtype, fill=fill)})


@dataclass_transform(kw_only_default=True, field_specifiers=(param, state))
class Table:
    """A dataclass whose tensor fields are columns of equal length, rows on axis 0."""

    def __init_subclass__(cls) -> None:
        """Make every attack class a dataclass."""
        dataclass(kw_only=True, eq=False)(cls)

    @classmethod
    def columns(cls) -> dict[str, Column]:
        """All columns by name."""
        found = {f.name: f.metadata.get("column") for f in dataclasses.fields(cls)}  # type: ignore[arg-type]  # set by __init_subclass__
        return {name: column for name, column in found.items() if column is not None}

    @classmethod
    def parameters(cls) -> dict[str, Parameter]:
        """The columns that a caller may set, by name."""
        return {
            name: dataclasses.replace(c.parameter, name=name)
            for name, c in cls.columns().items()
            if c.parameter is not None
        }

    def select(self, rows: Tensor | slice) -> Self:
        """These rows: views for a slice, copies for an index."""
        return dataclasses.replace(
            self, **{name: _rows(getattr(self, name), rows) for name in self.columns()}
        )  # type: ignore[type-var]  # as above

    def pick(self, name: str, rows: Tensor) -> Tensor:
        """These rows of one column, copied."""
        return _rows(getattr(self, name), rows)

    def update(self, rows: Tensor | slice, other: Self) -> None:
        """Write `other`'s rows over these."""
        for name in self.columns():
            column: Tensor = getattr(self, name)
            column[rows if isinstance(rows, slice) else rows.to(column.device)] = getattr(other, name)


class Method(Table, ABC):
    """What a caller may name, and what it says of itself: an attack, or several in turn (script.py)."""

    name: ClassVar[str]
    paper: ClassVar[str]
    default_loss: ClassVar[str] = "cross_entropy"
    losses: ClassVar[tuple[str, ...]] = ()  # that it can climb; none: all
    default_stop: ClassVar[int] = FIRST_SUCCESS
    evades: ClassVar[bool] = True  # can be led past detectors: it goes by the loss alone, not by the logits

    @classmethod
    def derived(cls, columns: Mapping[str, Tensor], given: Container[str]) -> dict[str, Tensor]:
        """The parameters that were not given and whose default follows from these columns."""
        return {
            name: p.rule.of(columns)
            for name, p in cls.parameters().items()
            if p.rule is not None and name not in given
        }

    @classmethod
    def faults(cls, values: Mapping[str, Tensor]) -> list[tuple[str, str]]:  # noqa: ARG003 - others need them
        """Parameters that do not go together, as (name, description)."""
        return []

    @classmethod
    def looks(cls, values: Mapping[str, Tensor]) -> Tensor:
        """[n] most looks at the model from which a row moves, given its columns; one more, the last, is judged only.

        An attack that needs several looks for one move (samples of a neighbourhood, classes, queries) takes them
        one after another, and counts in columns of its own where it is: the looks of one row share passes with
        those of others.
        """
        return values["steps"]


class Attack(Method, ABC):
    """What all attacks share: the goal, the best so far, and when a row is done.

    Pixels are float32 in [0, 1]; images are [n, C, H, W], logits [n, K], all else [n].
    Columns are changed in place only: the table may be a view of a larger one.
    """

    norm: ClassVar[Literal["linf", "l2", "none"]] = "linf"
    gradient: ClassVar[bool] = True  # needs gradients

    loss_name: str
    on_grid: bool  # judged and delivered on the 8-bit grid

    x0: Tensor = state("image")  # clean
    x: Tensor = state("image")  # iterate
    label: Tensor = state(dtype=torch.int64, fill=-1)  # to leave, or to reach; -1: the clean prediction
    targeted: Tensor = state(dtype=torch.bool)
    seed: Tensor = state(dtype=torch.int64)  # bits of a uint64
    sample: Tensor = state(dtype=torch.int64)
    restart: Tensor = state(dtype=torch.int64)
    steps: Tensor = state(dtype=torch.int64, fill=1)  # most moves
    stop: Tensor = state(dtype=torch.int64, fill=FIRST_SUCCESS)
    stop_margin: Tensor = state()
    keep_last: Tensor = state(dtype=torch.bool)
    allowed: Tensor = state(fill=math.inf)  # most suspicion with which detectors let a picture pass, in nats
    suspicion_weight: Tensor = state()  # of what is beyond that, in the loss
    in_turn: Tensor = state(dtype=torch.bool)  # fool the model first, then lose suspicion

    t: Tensor = state(dtype=torch.int64)  # moves made
    clean: Tensor = state(dtype=torch.int64, fill=-1)  # class seen in x0; -1 until seen
    before: Tensor = state("logits")  # of x0
    best: Tensor = state("image")
    after: Tensor = state("logits")  # of best
    best_t: Tensor = state(dtype=torch.int64, fill=-1)
    margin: Tensor = state(fill=-math.inf)  # of best
    merit: Tensor = state(fill=-math.inf)  # of best
    loss: Tensor = state()  # of best
    fooled: Tensor = state(dtype=torch.bool)  # of best
    suspicion: Tensor = state()  # of the latest look; 0 where no detectors watch
    already: Tensor = state(dtype=torch.bool)  # the clean image reaches the goal
    finite: Tensor = state(dtype=torch.bool, fill=True)
    done: Tensor = state(dtype=torch.bool)  # the answer is final
    spent: Tensor = state(dtype=torch.bool)  # wants one last look, though looks() allows for more
    zero_gradients: Tensor = state(dtype=torch.int64)
    judgements: Tensor = state(dtype=torch.int64)  # candidates judged
    rises: Tensor = state(dtype=torch.int64)  # of them, those with more loss than the one before
    first_loss: Tensor = state()  # of the first
    last_loss: Tensor = state()  # of the latest

    @classmethod
    def new(
        cls,
        x0: Tensor,
        *,
        classes: int,
        loss_name: str | None = None,
        on_grid: bool = False,
        **values: Tensor | float,
    ) -> Self:
        """Build a table of len(x0) rows; every column not given has its default.

        Values are tensors of the column's shape or one number for all rows.
        """
        columns = cls.columns()
        if unknown := set(values) - set(columns):
            raise TypeError(f"{cls.name}: no column {sorted(unknown)}")
        n = len(x0)
        sizes: Mapping[str, tuple[int, ...]] = {"row": (n,), "image": tuple(x0.shape), "logits": (n, classes)}
        made: dict[str, Tensor] = {}
        for name, c in columns.items():
            if c.shape == "image":
                made[name] = torch.full_like(x0, c.fill)
            else:
                made[name] = torch.full(sizes[c.shape], c.fill, dtype=c.dtype, device=x0.device)
            if name in values:
                made[name].copy_(torch.as_tensor(values[name]))
        for name, column in cls.derived(made, values).items():
            made[name].copy_(column)
        made["x0"].copy_(x0)
        made["x"].copy_(x0)
        return cls(loss_name=loss_name or cls.default_loss, on_grid=on_grid, **made)

    def __len__(self) -> int:
        """Rows."""
        return len(self.t)

    # --- what an attack says of itself -------------------------------------------------

    def opens(self) -> Tensor:
        """[n] bool: rows that start off the clean image, and so look at it once before."""
        return torch.zeros_like(self.done)

    def begin(self) -> None:
        """Put x at the start, for rows that open."""

    def aims(self) -> tuple[Tensor, Tensor]:
        """[n] label and [n] targeted that the next look's loss is of; they may change from look to look."""
        return self.label, self.targeted

    def judged(self) -> Tensor:
        """[n] bool: rows whose `points` are candidates, to be judged before the move. The last look always is."""
        return torch.ones_like(self.done)

    def radius(self) -> Tensor:
        """[n] radius of the ball; 1 where there is none."""
        epsilon: Tensor | None = getattr(self, "epsilon", None)
        return torch.ones_like(self.margin) if epsilon is None else epsilon

    def score(self, z: Tensor, loss: Tensor, margin: Tensor) -> Tensor:
        """[n] how good a candidate is; among those that fool, the highest is kept."""
        return margin

    @abstractmethod
    def step(self, logits: Tensor, loss: Tensor, grad: Tensor) -> None:
        """Move x, given what the model said at `points`. Finished rows may move: their answer is kept."""

    # --- what is written once ----------------------------------------------------------

    def points(self) -> Tensor:
        """[n, C, H, W] where the model is looked at next."""
        return self.candidates()

    def candidates(self) -> Tensor:
        """[n, C, H, W] the iterate as it would be delivered: on the 8-bit grid if asked, in the ball."""
        if not self.on_grid:
            return self.x
        if self.norm == "l2":
            return to_grid_l2(self.x, self.x0, self.radius())
        z = self.x.clone()
        ops.grid_(z, self.x0, self.radius())
        return z

    def observe(self, z: Tensor, logits: Tensor, loss: Tensor, judged: Tensor) -> None:
        """Judge the candidates z, where z is one, and keep the best. A row that is done keeps its answer."""
        first = (self.clean < 0) & judged
        label, clean = aim(logits, self.label, self.clean)
        self.label.copy_(torch.where(judged, label, self.label))
        self.clean.copy_(torch.where(judged, clean, self.clean))
        self.before.copy_(torch.where(first[:, None], logits, self.before))
        finite = torch.isfinite(logits).all(1) & torch.isfinite(loss) & torch.isfinite(self.suspicion)
        margin = lead(logits, self.label.clamp_min(0))
        margin = torch.where(self.targeted, -margin, margin)
        margin = torch.minimum(margin, self.allowed - self.suspicion)
        hit = margin > 0
        merit = self.score(z, loss, margin)
        better = self.keep_last | (self.best_t < 0) | (hit & ~self.fooled)
        better |= (hit == self.fooled) & (merit > self.merit)
        better &= finite & judged & ~self.done
        ops.keep_(self.best, z, better)
        self.after.copy_(torch.where(better[:, None], logits, self.after))
        for column, value in (
            (self.margin, margin),
            (self.merit, merit),
            (self.loss, loss),
            (self.best_t, self.t),
            (self.fooled, hit),
        ):
            column.copy_(torch.where(better, value, column))
        self.finite &= finite | self.done
        known = judged & ~self.done
        self.first_loss.copy_(torch.where(known & (self.judgements == 0), loss, self.first_loss))
        self.rises += known & (self.judgements > 0) & (loss > self.last_loss)
        self.last_loss.copy_(torch.where(known, loss, self.last_loss))
        self.judgements += known
        # What is asked for: success, or success by a margin.
        asked = (self.stop != MARGIN) | (margin >= self.stop_margin)
        self.already |= first & hit & asked & finite
        enough = (self.stop == FIRST_SUCCESS) | ((self.stop == MARGIN) & (self.margin >= self.stop_margin))
        self.done |= self.already | ~self.finite | (self.fooled & enough)

    def move(self, logits: Tensor, loss: Tensor, grad: Tensor) -> None:
        """Take note of the gradient, step, and count the move. An attack without gradients is given zeros [n]."""
        if self.gradient:
            largest = grad.abs().amax((1, 2, 3))  # a tenth of the time of vector_norm(grad, inf)
            self.finite &= torch.isfinite(largest) | self.done
            self.done |= ~self.finite
            self.zero_gradients += (largest == 0) & ~self.done
        self.step(logits, loss, grad)
        self.t += 1


def _rows(column: Tensor, rows: Tensor | slice) -> Tensor:
    """Rows of a column; unlike plain indexing, copies keep the memory format."""
    if isinstance(rows, slice):
        return column[rows]
    picked = torch.empty_strided(
        (len(rows), *column.shape[1:]), column.stride(), dtype=column.dtype, device=column.device
    )
    return torch.index_select(column, 0, rows.to(column.device), out=picked)


def aim(logits: Tensor, label: Tensor, clean: Tensor) -> tuple[Tensor, Tensor]:
    """Fill in label and clean prediction of rows that are looked at for the first time (both are -1 then)."""
    seen = logits.argmax(1)
    return torch.where(label < 0, seen, label), torch.where(clean < 0, seen, clean)


def to_grid_l2(x: Tensor, x0: Tensor, epsilon: Tensor) -> Tensor:
    """Round each change to whole grey levels, up where its fraction is largest, so that the row just stays in the L2 ball.

    x0 lies on the grid. Rounding to the nearest level would lose most of a small ball (all changes are
    below half a level) and leave a large one. The squares are whole numbers, so their sum has no order.
    """
    change = (x - x0) * 255
    size = change.abs()
    level = size.floor()
    part = size - level
    gain = (2 * level + 1).long()  # of the square, if rounded up
    room = (epsilon.double() * 255).square() - level.double().square().flatten(1).sum(1)
    # A row's gains by fraction, in bins of (k - 1, k] / _FRACTIONS; a NaN is nowhere.
    k = (part * _FRACTIONS).ceil().long().clamp_(0, _FRACTIONS)
    gains = gain.new_zeros(len(x), _FRACTIONS + 1).scatter_add_(1, k.flatten(1), gain.flatten(1))
    above = gains.sum(1, keepdim=True) - gains.cumsum(1)  # rounding up all fractions above k / _FRACTIONS
    least = (~(above <= room[:, None])).sum(1).clamp_(1, _FRACTIONS)
    high = least.to(part.dtype) / _FRACTIONS
    level += part > high.view(-1, 1, 1, 1)
    return ((x0 * 255).round() + level * change.sign()).clamp_(0, 255).div_(255)

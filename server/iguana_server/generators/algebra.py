"""Latent algebra: small expressions over named codes (Radford et al. 2016, arXiv:1511.06434, 6.3.2).

    [NAME =] SUM
    SUM      PRODUCT {(+ | -) PRODUCT}
    PRODUCT  FACTOR {* FACTOR}                 at most one factor is no number
    FACTOR   [-] (NUMBER | NAME | CALL | ( SUM ))
    CALL     seed(A) | seed(A..B)              codes of seeds
             mean(SUM, ...)                    of all codes of all arguments
             lerp(SUM, SUM, K)                 K codes on the straight line, both ends among them
             slerp(SUM, SUM, K)                the same on the great circle (Shoemake 1985)

A value is a number, one code, or a path of several. Of a path and one code, each code of the path is meant; of two
paths, as long as each other, those in the same place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NoReturn

import torch
from torch import Tensor

MAX_CHARACTERS = 4096
MAX_DEPTH = 32  # of brackets within brackets
MAX_SEEDS = 4096  # of one expression
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
FUNCTIONS = ("lerp", "mean", "seed", "slerp")
_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.(?!\.)\d*|\.\d+|\d+)(?:[eE][+-]?\d+)?)|(?P<name>[A-Za-z_]\w*)|(?P<sign>\.\.|[-+*(),=]))"
)
_COUNT = re.compile(r"\d{1,20}")
_PARALLEL = 1e-6  # sine of the angle below which the great circle is a straight line

Value = float | Tensor  # a number, or codes [k, d] float64


class Wrong(Exception):
    """An expression that cannot be read or computed: what was wanted, what came."""

    def __init__(self, want: str, got: str) -> None:
        self.want, self.got = want, got
        super().__init__(f"want {want}, got {got}")


def evaluate(
    expression: str, names: Mapping[str, Tensor], seeds: Callable[[list[int]], Tensor], *, most: int
) -> tuple[str, Tensor]:
    """Return the name that an expression gives (or "") and its codes, [k, d] float32; a path has at most `most`.

    `names` are codes [k, d] by name, `seeds` makes codes [n, d] of seeds. Sums are taken in float64. Raises Wrong.
    """
    if len(expression) > MAX_CHARACTERS:
        raise Wrong(f"at most {MAX_CHARACTERS} characters", str(len(expression)))
    return _Reader(expression, names, seeds, most).read()


class _Reader:
    """Recursive descent: each method reads what its name says, from where the last has stopped."""

    def __init__(
        self, text: str, names: Mapping[str, Tensor], seeds: Callable[[list[int]], Tensor], most: int
    ) -> None:
        self.names, self.seeds, self.most = names, seeds, most
        self.tokens = list(_tokens(text))
        self.at = self.depth = self.drawn = 0

    def read(self) -> tuple[str, Tensor]:
        name = ""
        if self.word() and len(self.tokens) > 1 and self.tokens[1][0] == "=":
            name = self.tokens[0][0]
            if not NAME.fullmatch(name) or name in FUNCTIONS:
                raise Wrong("a name of at most 64 characters that is no function's", ascii(name[:80]))
            self.at = 2
        value = self.sum()
        if self.at < len(self.tokens):
            self.stop("+, - or *")
        if isinstance(value, float):
            raise Wrong("a code", f"the number {value:g}")
        if len(value) > self.most:
            raise Wrong(f"at most {self.most} codes", str(len(value)))
        if not value.isfinite().all():
            raise Wrong("finite numbers", "NaN or infinity")
        return name, value.float()

    def stop(self, want: str) -> NoReturn:
        if self.at == len(self.tokens):
            raise Wrong(want, "the end")
        token, column = self.tokens[self.at]
        raise Wrong(want, f"{token[:40]!a} at character {column + 1}")

    def next(self) -> str:
        return self.tokens[self.at][0] if self.at < len(self.tokens) else ""

    def word(self) -> bool:
        return bool(re.match(r"[A-Za-z_]", self.next()))

    def take(self, sign: str) -> None:
        if self.next() != sign:
            self.stop(repr(sign))
        self.at += 1

    def sum(self) -> Value:
        value = self.product()
        while self.next() in ("+", "-"):
            sign = self.next()
            self.at += 1
            other = self.product()
            if isinstance(value, float) != isinstance(other, float):
                raise Wrong(f"codes on both sides of {sign}, or numbers", "one of each")
            value = self.join(value, other if sign == "+" else -other)
        return value

    def join(self, a: Value, b: Value) -> Value:
        if isinstance(a, Tensor) and isinstance(b, Tensor) and len(a) != len(b) and 1 not in (len(a), len(b)):
            raise Wrong("paths as long as each other", f"{len(a)} and {len(b)} codes")
        return a + b

    def product(self) -> Value:
        value = self.factor()
        while self.next() == "*":
            self.at += 1
            other = self.factor()
            if isinstance(value, Tensor) and isinstance(other, Tensor):
                raise Wrong("a number on one side of *", "codes on both")
            value = value * other
        return value

    def factor(self) -> Value:
        sign = 1.0
        while self.next() == "-":
            sign = -sign
            self.at += 1
        value = self.plain()
        return value if sign > 0 else -value

    def plain(self) -> Value:
        token = self.next()
        if token.startswith("("):
            self.at += 1
            value = self.deeper()
            self.take(")")
            return value
        if self.word():
            self.at += 1
            if self.next() == "(":
                return self.call(token)
            if token not in self.names:
                close = ", ".join(sorted(self.names)[:8]) or "none"
                raise Wrong(f"a name that was given ({close})", ascii(token[:64]))
            return self.names[token].double()
        if not token or not (token[0].isdigit() or token[0] == ".") or token == "..":  # noqa: S105 (no password)
            self.stop("a number, a name or (")
        self.at += 1
        return float(token)

    def deeper(self) -> Value:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Wrong(f"at most {MAX_DEPTH} brackets within brackets", "more")
        value = self.sum()
        self.depth -= 1
        return value

    def call(self, name: str) -> Tensor:
        if name not in FUNCTIONS:
            raise Wrong(f"one of {', '.join(FUNCTIONS)}", ascii(name[:64]))
        self.take("(")
        made: Tensor
        if name == "seed":
            made = self.of_seeds()
        elif name == "mean":
            made = self.mean()
        else:
            ends = self.codes(name), self.codes(name, comma=True)
            self.take(",")
            made = path(*ends, self.count("a number of codes", low=2, high=self.most), circle=name == "slerp")
        self.take(")")
        return made

    def codes(self, function: str, *, comma: bool = False) -> Tensor:
        """One code, an end of a path."""
        if comma:
            self.take(",")
        value = self.deeper()
        if isinstance(value, float) or len(value) != 1:
            raise Wrong(
                f"one code at each end of {function}",
                "a number" if isinstance(value, float) else f"{len(value)}",
            )
        return value

    def mean(self) -> Tensor:
        values = [self.deeper()]
        while self.next() == ",":
            self.at += 1
            values.append(self.deeper())
        codes = [value for value in values if isinstance(value, Tensor)]
        if len(codes) < len(values):
            raise Wrong("codes in mean", "a number")
        return torch.cat(codes).mean(0, keepdim=True)

    def of_seeds(self) -> Tensor:
        first = last = self.count("a seed", low=0, high=2**64 - 1)
        if self.next() == "..":
            self.at += 1
            last = self.count("a seed", low=0, high=2**64 - 1)
        self.drawn += last - first + 1
        if last < first or self.drawn > MAX_SEEDS:
            raise Wrong(f"seeds from low to high, at most {MAX_SEEDS} in an expression", f"{first}..{last}")
        return self.seeds(list(range(first, last + 1))).double()

    def count(self, what: str, *, low: int, high: int) -> int:
        token = self.next()
        if not _COUNT.fullmatch(token) or not low <= int(token) <= high:
            self.stop(f"{what}, {low} to {high}")
        self.at += 1
        return int(token)


def path(a: Tensor, b: Tensor, k: int, *, circle: bool) -> Tensor:
    """Return k codes [k, d] from a to b, [1, d] each, on a straight line or a great circle."""
    t = torch.linspace(0, 1, k, dtype=torch.float64)[:, None]
    a, b = a.double(), b.double()
    if circle:
        cosine = (a * b).sum() / (a.norm() * b.norm())
        angle = cosine.clamp(-1, 1).acos()
        if angle.sin() > _PARALLEL:  # NaN, of a code of zeros, is not
            made: Tensor = (((1 - t) * angle).sin() * a + (t * angle).sin() * b) / angle.sin()
            made[0], made[-1] = a[0], b[0]
            return made
    return (1 - t) * a + t * b


def _tokens(text: str) -> list[tuple[str, int]]:
    """Cut a text into tokens, with the place of each."""
    found, at = [], 0
    end = len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None:
            at += len(text[at:]) - len(text[at:].lstrip())
            raise Wrong("numbers, names and + - * ( ) , .. =", f"{text[at]!a} at character {at + 1}")
        token = match[match.lastgroup or 0]
        found.append((token, match.end() - len(token)))
        at = match.end()
    return found

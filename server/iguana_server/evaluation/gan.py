"""`iguana-server evaluate gan`: made pictures beside real ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from iguana_server import generators
from iguana_server.errors import InvalidArgument
from iguana_server.evaluation import curves, extractor, pictures, sheets
from iguana_server.evaluation.document import Document, Heading, Part, Table, drawn
from iguana_server.evaluation.extractor import SPACES, Extractor, Seen, see
from iguana_server.evaluation.figures import Figures, measure, subset
from iguana_server.evaluation.pictures import Pictures
from iguana_server.evaluation.samples import draw
from iguana_server.evaluation.stages import Stage, stages
from iguana_server.generators.base import Generator
from iguana_server.metrics import kernel
from iguana_server.metrics.manifest import Manifest
from iguana_server.metrics.manifold import K
from iguana_server.metrics.nearest import nearest
from iguana_server.synthesis import catalog

LOOKED_UP = 1000  # pictures whose nearest training pictures are looked for
SHOWN = 32  # pairs of the neighbours' sheet: the closest half first, then any
GRID = 16  # rows and columns of the sheet of samples; columns are the classes where there are some


@dataclass(frozen=True, kw_only=True)
class GanEvaluation:
    """What is asked: a generator or its pictures, the real ones, where the report goes.

    `train` is what the generator was trained on, by default the training files beside Fashion-MNIST's test files:
    without it nothing is looked up, and there is no line of real pictures to compare with.
    """

    data: Path
    out: Path
    model: str = ""
    images: Path | None = None
    train: Path | None = None
    extractor: str = ""
    n: int = 10_000
    splits: int = 10
    seed: int = 0

    def run(self, console: Console) -> Mapping[str, Any]:
        """Evaluate; returns the report, which is written to `out` with its sheets.

        Raises InvalidArgument, NotFound, ModelRefused, FailedPrecondition where it cannot be done.
        """
        curves.require()
        if bool(self.model) == (self.images is not None):
            raise InvalidArgument("--model", "want it or --images, got both or neither")
        if self.n < 2 * self.splits or self.splits < 1:
            want = "want 1 split or more, of 2 pictures or more"
            raise InvalidArgument("--splits", f"{want}, got {self.splits} of {self.n}")
        self.out.mkdir(parents=True, exist_ok=True)
        with stages(console) as stage:
            made, made_by, sha256 = self._made(stage)
            real = pictures.read(self.data, "--data", "t10k", made.shape)
            train = self._train(made)
            judge = extractor.find(self.extractor, made.shape)
            sides = [
                see(judge, side, stage(f"looking at {name}", len(side)))
                for name, side in (("made", made), ("real", real), ("training", train))
                if side is not None
            ]
            return self._report(judge, sides, made_by, sha256, stage, console)

    def _made(self, stage: Stage) -> tuple[Pictures, str, str]:
        """Return the pictures, what made them, and the sha256 of that."""
        if self.images is not None:
            split: pictures.Split = "t10k" if pictures.has_idx(self.images, "t10k") else "train"
            found = pictures.read(self.images, "--images", split)
            if self.n > len(found):
                raise InvalidArgument("--n", f"want at most the {len(found)} of {self.images}, got {self.n}")
            found = found.taken(slice(self.n))
            return found, found.title, found.digest
        generator = catalog.load(generators, self.model)
        assert isinstance(generator, Generator)  # noqa: S101 - all of that package are
        pixels, labels = draw(generator, self.n, self.seed, stage("making pictures", self.n))
        return Pictures(self.model, pixels, labels), self.model, generator.sha256

    def _train(self, made: Pictures) -> Pictures | None:
        if self.train is not None:
            return pictures.read(self.train, "--train", "train", made.shape)
        if pictures.has_idx(self.data, "train"):
            return pictures.read(self.data, "--data", "train", made.shape)
        return None

    def _report(
        self, judge: Extractor, sides: list[Seen], made_by: str, sha256: str, stage: Stage, console: Console
    ) -> Mapping[str, Any]:
        made, real, *rest = sides
        train = rest[0] if rest else None
        stage("measuring", 1)
        try:
            figures, found = measure(made, real, judge.classes, splits=self.splits, seed=self.seed)
            # What a perfect generator would get: as many pictures of the real distribution, none of them `real`.
            floor = None
            if train:
                order = torch.randperm(len(train), generator=torch.Generator().manual_seed(self.seed))
                others = train.taken(order[: len(made)])
                floor, _ = measure(others, real, judge.classes, splits=self.splits, seed=self.seed)
        except ValueError as error:
            raise InvalidArgument("--n", str(error)) from error
        manifest = Manifest(
            extractor=judge.name,
            extractor_sha256=judge.sha256,
            features=made.features.shape[1],
            resize=judge.resize,
            real=real.pictures.title,
            real_sha256=real.pictures.digest,
            n_real=len(real),
            made=made_by,
            made_sha256=sha256,
            n_made=len(made),
            splits=self.splits,
            kid_subsets=kernel.SUBSETS,
            kid_size=subset(made, real),
            neighbours=K,
            bias=found.bias,
            seed=self.seed,
        )
        report: dict[str, Any] = {
            "manifest": manifest.to_json(),
            "made": figures.to_json(),
            "real_training_pictures": floor.to_json() if floor else None,
            "classifier_on_real_pictures": _accuracy(real, judge.classes),
            "extrapolation": {"sizes": list(found.sizes), "distances": list(found.distances)},
        }
        labels = made.pictures.labels
        columns = int(labels.max()) + 1 if labels is not None else GRID
        plots = [self.out / "samples.png", self.out / "extrapolation.png"]
        sheets.grid(made.pictures.pixels[: GRID * columns], plots[0], columns=columns)
        sheets.extrapolation(found, plots[1])
        if train:
            stage("looking up neighbours", 1)
            report["neighbours"] = self._look_up(made, real, train, plots)
        table = _table(figures, floor)
        self._document(report, table, plots).write(self.out)
        console.print(drawn(table, title=f"{made_by} beside {real.pictures.title}"))
        return report

    def _look_up(self, made: Seen, real: Seen, train: Seen, plots: list[Path]) -> dict[str, Any]:
        """Distances of made, and of real unseen, pictures to the nearest training picture; the sheet of pairs."""
        found: dict[str, Any] = {"pictures": LOOKED_UP}
        panels = {}
        few = made.taken(slice(LOOKED_UP)), real.taken(slice(LOOKED_UP))
        for space in SPACES:
            base = train.space(space)
            (near, rows), (unseen, _) = (nearest(side.space(space), base) for side in few)
            sets = {"made": near[:, 0], "real, not trained on": unseen[:, 0]}
            panels[space] = sets
            found[space] = {
                "made_median": near.median().item(),
                "made_least": near.min().item(),
                "real_median": unseen.median().item(),
                "real_least": unseen.min().item(),
                "closer_than_real_1_percent": (near < unseen.quantile(0.01)).double().mean().item(),
            }
            order = near[:, 0].argsort()[: SHOWN // 2].tolist()
            order += [i for i in range(len(near)) if i not in order][: SHOWN - len(order)]
            plots.append(self.out / f"neighbours-{space}.png")
            pairs = [
                (made.pictures.pixels[i], train.pictures.pixels[rows[i, 0]], near[i, 0].item()) for i in order
            ]
            sheets.neighbours(pairs, plots[-1])
        plots.append(self.out / "distances.png")
        sheets.distances(panels, plots[-1])
        return found

    def _document(self, report: Mapping[str, Any], table: Table, plots: list[Path]) -> Document:
        manifest, made = report["manifest"], report["made"]
        parts: list[Part] = [
            f"{manifest['n_made']} pictures of {manifest['made']} beside {manifest['n_real']} real ones "
            f"({manifest['real']}), in {manifest['features']} features of {manifest['extractor']}. Figures of another "
            "extractor, number of pictures or resize are not comparable with these.",
            table,
            plots[0],
        ]
        if made["per_class"]:
            real = report["classifier_on_real_pictures"]
            rows = [(name, f"{100 * share:.1f}") for name, share in made["per_class"].items()]
            parts += [
                Heading("Seen as the class they were made as"),
                f"By {manifest['extractor']}, which sees {100 * real:.1f} % of the real pictures rightly."
                if real is not None
                else f"By {manifest['extractor']}.",
                Table(("class", "%"), rows),
            ]
        parts += [
            Heading("The number of pictures"),
            f"Of {manifest['n_made']} pictures the FID is {made['fid']:.4g}; a line through those of fewer meets "
            f"{made['fid_infinity']:.4g} at endlessly many: {manifest['bias']:.3g} of it is the number's.",
            plots[1],
        ]
        if "neighbours" in report:
            parts += [
                Heading("Copied from the training pictures?"),
                f"L2 distances of {LOOKED_UP} made pictures, and of {LOOKED_UP} real ones that were not trained on, to "
                "the nearest training picture (pixels in [0, 1]). A generator that copies is closer than the real ones.",
                _neighbours(report["neighbours"]),
                plots[-1],
                "Made on the left, the nearest training picture on the right, the distance above; first the closest.",
                *plots[2:-1],
            ]
        parts += [
            Heading("What was measured, and how"),
            Table(("", ""), [(key, f"{value}") for key, value in manifest.items()]),
        ]
        return Document(f"Made pictures: {manifest['made']}", parts, report)


def _accuracy(real: Seen, classes: tuple[str, ...]) -> float | None:
    labels = real.pictures.labels
    if labels is None or not classes:
        return None
    return (real.logits.argmax(1) == labels).float().mean().item()


def _table(made: Figures, floor: Figures | None) -> Table:
    sides = [("made", made), *([("real training pictures", floor)] if floor else [])]
    rows = {
        "FID": [f"{one.fid:.4g}" for _, one in sides],
        "FID, of endlessly many": [f"{one.fid_infinity:.4g}" for _, one in sides],
        "KID x 1000": [f"{1000 * one.kid:.4g} ± {1000 * one.kid_deviation:.2g}" for _, one in sides],
        "inception score": [
            f"{one.inception_score:.4g} ± {one.inception_score_deviation:.2g}" for _, one in sides
        ],
        "precision %": [f"{100 * one.precision:.1f}" for _, one in sides],
        "recall %": [f"{100 * one.recall:.1f}" for _, one in sides],
        "seen as their class %": [
            "" if one.accuracy is None else f"{100 * one.accuracy:.1f}" for _, one in sides
        ],
    }
    return Table(("", *(name for name, _ in sides)), [(name, *cells) for name, cells in rows.items()])


def _neighbours(found: Mapping[str, Any]) -> Table:
    rows = [
        (
            space,
            *(
                f"{found[space][key]:.3g}"
                for key in ("made_median", "real_median", "made_least", "real_least")
            ),
            f"{100 * found[space]['closer_than_real_1_percent']:.1f}",
        )
        for space in SPACES
    ]
    columns = ("", "made, median", "real, median", "made, least", "real, least", "% made below real's 1 %")
    return Table(columns, rows)

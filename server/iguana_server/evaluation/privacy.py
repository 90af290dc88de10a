"""`iguana-server evaluate privacy`: what a synthetic set is good for, and what it gives away of the real one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from iguana_server import generators
from iguana_server.errors import InvalidArgument, NotFound
from iguana_server.evaluation import curves, extractor, pictures, sheets
from iguana_server.evaluation.document import Document, Heading, Part, Table, drawn
from iguana_server.evaluation.extractor import SPACES, Extractor, Seen, see
from iguana_server.evaluation.pictures import Pictures
from iguana_server.evaluation.stages import Stage, stages
from iguana_server.evaluation.synthetic import IMAGES, LABELS, Synthetic, write_idx
from iguana_server.generators.base import Critic, Generator
from iguana_server.metrics.nearest import nearest
from iguana_server.metrics.roc import auc
from iguana_server.synthesis import catalog
from iguana_server.training.recipes.standard import Standard
from iguana_server.training.run import Run

LOOKED_UP = 5000  # pictures of each side whose neighbours are looked for, and whose membership is guessed
CRITIC = "discriminator's score"
TEST = "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"


@dataclass(frozen=True, kw_only=True)
class PrivacyEvaluation:
    """What is asked: a folder of `iguana-server synthesize`, Fashion-MNIST, where the report goes."""

    synthetic: Path
    data: Path
    out: Path
    epochs: int = 5
    seed: int = 0

    def run(self, console: Console) -> Mapping[str, Any]:
        """Evaluate; returns the report, which is written to `out` with its plots.

        Raises InvalidArgument, NotFound, ModelRefused, FailedPrecondition where it cannot be done.
        """
        curves.require()
        told = Synthetic.read(self.synthetic)
        for split in ("train", "t10k"):
            if not pictures.has_idx(self.data, split):
                raise InvalidArgument(
                    "--data", f"want Fashion-MNIST's IDX files, got none of {split} in {self.data}"
                )
        made = pictures.read(self.synthetic, "--synthetic", "train", (1, 28, 28))
        train, test = (pictures.read(self.data, "--data", split) for split in ("train", "t10k"))
        if not 10 <= len(made) <= len(train):
            raise InvalidArgument("--synthetic", f"want 10 to {len(train)} pictures, got {len(made)}")
        critic = _critic(told)
        self.out.mkdir(parents=True, exist_ok=True)
        with stages(console) as stage:
            recipe = Standard(epochs=self.epochs)
            accuracy = {
                "synthetic": self._train(recipe, made, "synthetic", stage),
                "real": self._train(recipe, _balanced(train, len(made), self.seed), "real", stage),
            }
            judge = extractor.find("", made.shape)
            members = train.taken(_drawn(len(train), self.seed))
            others = test.taken(_drawn(len(test), self.seed))
            few = made.taken(_drawn(len(made), self.seed))
            neighbours, near = _look_up(judge, few, others, train, stage)
            attacks = _attacks(judge, members, others, made, stage)
            if not isinstance(critic, str):
                stage("asking the discriminator", 1)
                attacks[CRITIC] = _by_critic(critic, members), _by_critic(critic, others)
        report: dict[str, Any] = {
            "synthetic": told.to_json(),
            "real_sha256": train.digest,
            "extractor": judge.name,
            "extractor_sha256": judge.sha256,
            "seed": self.seed,
            "recipe": asdict(recipe),
            "pictures": len(made),
            "accuracy_on_real_test": accuracy,
            "neighbours": neighbours,
            "members": len(members),
            "others": len(others),
            "membership_auc": {name: asdict(auc(*scores)) for name, scores in attacks.items()},
            "without_critic": critic if isinstance(critic, str) else None,
        }
        plots = [self.out / "distances.png", self.out / "membership.png"]
        sheets.distances(near, plots[0])
        sheets.curves(attacks, plots[1])
        document = _document(report, plots)
        document.write(self.out)
        for table in (part for part in document.parts if isinstance(part, Table)):
            console.print(drawn(table))
        return report

    def _train(self, recipe: Standard, on: Pictures, name: str, stage: Stage) -> float:
        """Return the accuracy on the real test pictures of a classifier that has seen `on` alone."""
        folder = self.out / f"trained-on-{name}"
        folder.mkdir(exist_ok=True)
        assert on.labels is not None  # noqa: S101 - both sets have them
        write_idx(on.pixels[:, 0], folder / IMAGES)
        write_idx(on.labels, folder / LABELS)
        for file in TEST:
            link = folder / file
            link.unlink(missing_ok=True)
            link.symlink_to((self.data / file).resolve())
        advance = stage(f"training on {name} pictures", recipe.epochs)
        with _one_thread():
            run = Run(folder, folder / f"{recipe.epochs}-{self.seed}", recipe, self.seed)
            for _ in run.epochs():
                advance(1)
        return run.log[-1]["accuracy"]


@contextmanager
def _one_thread() -> Iterator[None]:
    """The weights depend on their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _drawn(n: int, seed: int) -> Tensor:
    """LOOKED_UP of n rows, or all."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:LOOKED_UP]


def _balanced(whole: Pictures, n: int, seed: int) -> Pictures:
    """N pictures, as many (or one more) of each class: as synthetic sets are."""
    assert whole.labels is not None  # noqa: S101 - Fashion-MNIST has them
    order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(seed))
    labels = whole.labels[order]
    place = torch.zeros_like(labels)  # among its class
    for label in torch.unique(labels):
        of = labels == label
        place[of] = torch.arange(int(of.sum()))
    return whole.taken(order[place.argsort(stable=True)[:n]])


def _look_up(
    judge: Extractor, made: Pictures, test: Pictures, train: Pictures, stage: Stage
) -> tuple[dict[str, Any], dict[str, dict[str, Tensor]]]:
    """Distances of synthetic, and of test pictures, to the nearest training picture: figures, and all of them."""
    sides = [
        see(judge, side, stage(f"looking at {name}", len(side)))
        for name, side in (("synthetic", made), ("test", test), ("training", train))
    ]
    stage("looking up neighbours", 1)
    figures, panels = {}, {}
    for space in SPACES:
        synthetic, unseen = (nearest(side.space(space), sides[2].space(space))[0][:, 0] for side in sides[:2])
        figures[space] = {
            "synthetic_median": synthetic.median().item(),
            "test_median": unseen.median().item(),
            "closer_than_test_1_percent": (synthetic < unseen.quantile(0.01)).double().mean().item(),
            "copies": int((synthetic == 0).sum()),
        }
        panels[space] = {"synthetic": synthetic, "test": unseen}
    return figures, panels


def _attacks(
    judge: Extractor, members: Pictures, others: Pictures, made: Pictures, stage: Stage
) -> dict[str, tuple[Tensor, Tensor]]:
    """Scores of members and of others: how near is the nearest synthetic picture?"""
    seen: list[Seen] = [
        see(judge, side, stage(f"looking at {name}", len(side)))
        for name, side in (("members", members), ("others", others), ("synthetic", made))
    ]
    stage("guessing members", 1)
    found = {}
    for space in SPACES:
        base = seen[2].space(space)
        scores = [-nearest(side.space(space), base)[0][:, 0] for side in seen[:2]]
        found[f"distance in {space}"] = scores[0], scores[1]
    return found


def _critic(told: Synthetic) -> Critic | str:
    """Return the discriminator that the set's generator was trained against, or why there is none."""
    try:
        generator = catalog.load(generators, told.model)
    except NotFound as error:
        return str(error)
    assert isinstance(generator, Generator)  # noqa: S101 - all of that package are
    if generator.sha256 != told.model_sha256:
        return f"{told.model}: want weights of sha256 {told.model_sha256}, got {generator.sha256}"
    return generator.critic or f"{told.model}: the discriminator is not published with the generator"


@torch.inference_mode()
def _by_critic(critic: Critic, side: Pictures) -> Tensor:
    """Scores [n] by the discriminator (LOGAN: Hayes et al. 2019, arXiv:1705.07663)."""
    assert side.labels is not None  # noqa: S101 - Fashion-MNIST has them
    columns = side.pixels, side.labels
    parts = zip(*(torch.split(column, critic.bucket) for column in columns), strict=True)
    return torch.cat([critic(pixels.float() / 255, label) for pixels, label in parts])


def _document(report: Mapping[str, Any], plots: list[Path]) -> Document:
    told, accuracy = report["synthetic"], report["accuracy_on_real_test"]
    rows = [
        (f"{report['pictures']} {name} pictures", f"{100 * share:.2f}") for name, share in accuracy.items()
    ]
    near = [
        (
            space,
            f"{one['synthetic_median']:.4g}",
            f"{one['test_median']:.4g}",
            f"{100 * one['closer_than_test_1_percent']:.2f}",
            str(one["copies"]),
        )
        for space, one in report["neighbours"].items()
    ]
    guesses = [
        (name, f"{one['value']:.3f}", f"{one['low']:.3f} to {one['high']:.3f}")
        for name, one in report["membership_auc"].items()
    ]
    parts: list[Part] = [
        f"{told['n']} pictures of {told['model']}, seed {told['seed']}, beside the Fashion-MNIST that it was trained on.",
        Heading("Train on synthetic, test on real"),
        f"The recipe `standard`, {report['recipe']['epochs']} epochs, seed {report['seed']}, on as many pictures of "
        "either side, as many of each class; accuracy on Fashion-MNIST's test pictures.",
        Table(("trained on", "accuracy %"), rows),
        Heading("Copies"),
        f"L2 distances of {min(LOOKED_UP, told['n'])} synthetic and {report['others']} test pictures to the nearest "
        f"training picture, in pixels of [0, 1] and in features of {report['extractor']}. Where nothing is copied, "
        "1 % or less is closer than the test pictures' first percentile.",
        Table(("", "synthetic, median", "test, median", "% below test's 1 %", "copies"), near),
        plots[0],
        Heading("Was this picture trained on?"),
        f"{report['members']} training pictures and {report['others']} test pictures, told apart by the distance to "
        "the nearest synthetic picture, and by the discriminator's score (Hayes et al. 2019) where there is one. An "
        "area of 0.5 is a coin; the interval is DeLong's, 95 %.",
        Table(("told by", "AUC", "95 %"), guesses),
        *([f"No discriminator was asked. {report['without_critic']}."] if report["without_critic"] else []),
        plots[1],
        "These attacks are two of many: an AUC of 0.5 is no proof, and no bound, of privacy.",
        Heading("What was measured, and how"),
        Table(
            ("", ""), [(name, f"{told[name]}") for name in ("model", "model_sha256", "seed", "n", "licence")]
        ),
    ]
    return Document(f"Synthetic pictures of {told['model']}", parts, report)

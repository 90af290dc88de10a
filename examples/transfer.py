"""A forged cat that a network sees as an iguana which has never been asked.

Forged on surrogates, EfficientNet-Lite0 and Lite1, alone and as one model, and then shown to a victim, Lite2, as
a file: no query is spent on the way, nor is the victim's gradient known. The surrogates' pictures are of other
sizes than the victim's, 260 x 260, so that it resizes the file; an ensemble for pictures of another size is a
manifest away. Prints a table. Run as `python -m examples.transfer`; it takes some seven minutes of one core.
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from statistics import fmean

from examples.demo import HERE, OUT, server
from iguana import Classification, Client

TARGET, VICTIM = "common iguana", "efficientnet-lite2"
IGUANA, CATS = (39,), range(281, 286)  # of ImageNet's classes
LEVELS = (4, 8, 16)  # of 255
STEPS = 20
DRAWS = 4  # times that each is forged: the input diversity is another for each picture of a request
MANIFEST = """
name = "{name}"
shape = [3, {size}, {size}]
resize = {size}
bucket = 4
max_batch = 8
description = "EfficientNet-Lite0 and Lite1"
licence = "Apache-2.0"
source = "efficientnet-lite0, efficientnet-lite1"
members = ["efficientnet-lite0", "efficientnet-lite1"]
average = "{average}"
"""
BOTH = "efficientnet-lite-ensemble"  # of 240 x 240
OTHERS = {  # of the two: size and average
    "lite-224": (224, "logits"),
    "lite-260": (260, "logits"),
    "lite-240-probabilities": (240, "probabilities"),
}
RUNS = (  # surrogate, method, loss
    ("efficientnet-lite0", "difgsm", "cross_entropy"),
    ("efficientnet-lite1", "difgsm", "cross_entropy"),
    (BOTH, "pgd", "cross_entropy"),
    (BOTH, "mifgsm", "cross_entropy"),
    (BOTH, "difgsm", "cross_entropy"),
    ("lite-240-probabilities", "difgsm", "cross_entropy"),
    (BOTH, "difgsm", "logit"),
    ("lite-224", "difgsm", "logit"),
    ("lite-260", "difgsm", "logit"),
)


def share(seen: Classification, classes: Collection[int]) -> float:
    """The probability of some classes together."""
    return sum(one.probability for one in seen.top if one.index in classes)


def forge(client: Client, model: str, method: str, loss: str) -> str:
    """A line of the table: at each radius, the mean over the forgeries of what surrogate and victim see."""
    answer = client.attack(
        [HERE / "cat.png"] * len(LEVELS) * DRAWS,
        method,
        model=model,
        target=TARGET,
        epsilon=[level / 255 for level in LEVELS for _ in range(DRAWS)],
        steps=STEPS,
        loss=loss,
        stop="never",
        keep="last",
        strict=False,
        victim=VICTIM,
        top_k=1000,
        timeout_s=900,
    )
    line = f"{model:27}{method:8}{loss:14}"
    for start in range(0, len(answer), DRAWS):
        results = answer[start : start + DRAWS]
        seen = [result.transfer.after for result in results if result.transfer is not None]
        means = (
            fmean(share(result.after, IGUANA) for result in results),
            fmean(share(one, IGUANA) for one in seen),
            fmean(share(one, CATS) for one in seen),
        )
        iguanas = sum(result.transfer.fooled for result in results if result.transfer is not None)
        line += " |" + "".join(f"{mean:7.3f}" for mean in means) + f"{iguanas:3}/{DRAWS}"
    return line


def main() -> int:
    """Forge by each method on each surrogate."""
    OUT.mkdir(exist_ok=True)
    loaded = ("efficientnet-lite0", "efficientnet-lite1", BOTH, VICTIM)
    flags = [word for name in loaded for word in ("--models.load", name)]
    for name, (size, average) in OTHERS.items():
        path = OUT / f"{name}.toml"
        path.write_text(MANIFEST.format(name=name, size=size, average=average))
        flags += ["--models.manifests", str(path)]
    with server(*flags) as address, Client(address) as client:
        print(
            f"{TARGET!r} in {STEPS} steps, mean of {DRAWS}: its probability to the surrogate, under the radius, and"
        )
        print(f"to {VICTIM}, which also sees that of cats; how many of the pictures it takes for one")
        print(" " * 49, *(f" |{f'{level}/255':>7}{'iguana':>7}{'cats':>7}{'':5}" for level in LEVELS), sep="")
        for run in RUNS:
            print(forge(client, *run), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

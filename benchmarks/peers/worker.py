"""One contender in one process, which does a task at a time.

    python -m benchmarks.peers.worker CONTENDER VICTIM DEVICE default|iguana

The last word says whose allocator and OpenMP settings it has. It reads an object a line and answers with one:

    {"task": {...}}                       do it; the answer comes when it is done
    {"task": {...}, "deliver": PATH}      write what was made of it last to PATH, as NumPy's .npy
"""

from __future__ import annotations

import importlib
import json
import sys

from iguana_server import process


def main() -> None:
    """Serve tasks until standard input ends."""
    name, victim_name, device, settings = sys.argv[1:]
    if settings == "iguana":
        process.prepare()
    replies, sys.stdout = sys.stdout, sys.stderr  # libraries print

    import numpy as np  # noqa: PLC0415 - process.prepare() must precede torch
    import torch  # noqa: PLC0415

    from benchmarks.passing import passing  # noqa: PLC0415
    from benchmarks.peers import victim as victims  # noqa: PLC0415
    from benchmarks.peers.task import Task  # noqa: PLC0415

    victim = passing(lambda: victims.load(victim_name, torch.device(device)))
    module = importlib.import_module(f"benchmarks.peers.{name}")

    def reply(**values: object) -> None:
        print(json.dumps(values), file=replies, flush=True)

    with module.contender(victim) as run:
        for strict in (True, False):  # warm, at both sizes of pass
            run(Task("pgd", 8 / 255, 1, strict=strict))
        reply(attacks=sorted(module.ATTACKS), threads=torch.get_num_threads())
        made: dict[Task, torch.Tensor] = {}
        for line in sys.stdin:
            command = json.loads(line)
            task = Task(**command["task"])
            if path := command.get("deliver"):
                np.save(path, made[task].detach().cpu().float().numpy(), allow_pickle=False)
            else:
                made[task] = run(task)
                if device != "cpu":
                    torch.cuda.synchronize()
            reply(done=True)


if __name__ == "__main__":
    main()

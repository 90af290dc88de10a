"""The composition root: what a server is made of, in the order in which it comes and goes."""

from __future__ import annotations

import asyncio
import difflib
import gc
import logging
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Self

import grpc.aio
import torch

from iguana.v1 import (
    attack_pb2_grpc,
    classify_pb2_grpc,
    detect_pb2_grpc,
    generate_pb2_grpc,
    model_pb2_grpc,
    translate_pb2_grpc,
)
from iguana_server import generators, process, translators
from iguana_server.config import Config
from iguana_server.detectors import calibration
from iguana_server.detectors.net import SafetyNet, built_in, load_net
from iguana_server.engine.loop import Engine
from iguana_server.errors import InvalidArgument, ModelRefused, NotFound
from iguana_server.generators.base import Generator
from iguana_server.models import catalog
from iguana_server.models.base import Model
from iguana_server.networks import load_manifest
from iguana_server.rpc.attack import AttackServicer
from iguana_server.rpc.bounds import Limits
from iguana_server.rpc.classify import ClassifyServicer
from iguana_server.rpc.codec import Codec
from iguana_server.rpc.detect import DetectServicer
from iguana_server.rpc.generate import GenerateServicer
from iguana_server.rpc.generation import Generation
from iguana_server.rpc.intake import Intake
from iguana_server.rpc.models import ModelServicer
from iguana_server.rpc.server import Server, methods
from iguana_server.rpc.translate import TranslateServicer
from iguana_server.rpc.translation import Translation
from iguana_server.synthesis import catalog as synthesis
from iguana_server.synthesis.base import Network
from iguana_server.telemetry import Telemetry
from iguana_server.translators.base import Translator

WARM_UP_PASSES = 2  # of each kind: the first allocates, the second shows that it sufficed
WATCH_S = 0.5  # between two looks at the engine's beat
LEAVE_S = 12.0  # beyond the drain for all to end: calls 4 s, the engine 3 s, the last spans 3 s

_log = logging.getLogger(__name__)


class EngineFailed(Exception):
    """The engine has stopped by itself; the process must be started again."""


class EngineHangs(Exception):
    """The engine's thread does not end; the process must, without waiting for it."""


class App:
    """A running server, in this process and on this event loop.

    async with App(config) as app:
        grpc.aio.insecure_channel(f"127.0.0.1:{app.port}")

    The port opens when everything is ready. On exit it drains (config.server.drain_s).
    """

    def __init__(self, config: Config) -> None:
        """Make nothing yet. A second app in the process shares torch's threads with the first."""
        self.config = config
        self.failed = asyncio.Event()  # the engine's failure
        self.hangs = False  # the engine's thread has outlived this app
        self._stack = AsyncExitStack()
        self._began = time.perf_counter()

    async def __aenter__(self) -> Self:
        """Start.

        Raises NotFound or ModelRefused for a model, InvalidArgument for a device that is not there, OSError for
        an address or port that cannot be had.
        """
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Drain and end all."""
        await self._stack.aclose()

    async def _start(self) -> None:
        config, stack = self.config, self._stack
        torch.set_num_threads(config.threads.torch)
        server = config.server
        self.telemetry = await stack.enter_async_context(
            Telemetry(config.telemetry, methods=methods(), host=server.host, port=server.metrics_port)
        )
        self._loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, "loader") as loader:  # its end is the end of its team; see process.py
            self.served = served = await self._loop.run_in_executor(
                loader, load_models, config, self.telemetry
            )
            for model in served.models.values():
                await self._loop.run_in_executor(loader, warm_up, model)
        nets = load_nets(config, served.models)
        process.give_back()
        decoders = ThreadPoolExecutor(config.threads.decode, "decoder")
        stack.callback(decoders.shutdown, wait=False, cancel_futures=True)
        self.engine = Engine(
            served.models,
            served.networks(),
            max_cost=config.limits.max_waiting_cost,
            max_rows=config.engine.max_rows,
            meter=self.telemetry,
            on_failure=self._engine_failed,
        )
        self.engine.start()
        torch.set_num_threads(1)  # of this thread and of those that begin from here on; see process.py
        stack.push_async_callback(self._stop_engine)
        gc.collect()
        gc.freeze()  # a full collection over torch's objects takes 80 ms with the GIL held
        stack.callback(gc.unfreeze)
        self.server = Server(
            config, self.telemetry, servicers(limits(config), self.engine, served, decoders, nets)
        )
        await self.server.start()
        stack.push_async_callback(self.server.stop, lambda: asyncio.to_thread(self.engine.stop, 0))
        watch = asyncio.create_task(watch_engine(self.engine, self.server, config.engine.hang_s))
        stack.callback(watch.cancel)
        self.port, self.metrics_port = self.server.port, self.telemetry.port
        _log.info(
            "serving",
            extra={
                "address": f"{server.host}:{self.port}",
                "port": self.port,
                "metrics_port": self.metrics_port,
                "models": [*served.models, *served.generators, *served.translators],
                "device": config.models.device,
                "start_s": round(time.perf_counter() - self._began, 3),
            },
        )

    async def _stop_engine(self) -> None:
        """End the engine's thread; note if it does not end."""
        self.hangs = not await asyncio.to_thread(self.engine.stop)

    def _engine_failed(self) -> None:
        """Say so on the event loop; called in the engine's thread."""
        self._loop.call_soon_threadsafe(self.failed.set)


@dataclass
class Served:
    """What is loaded, by name; no two have the same."""

    models: dict[str, Model] = field(default_factory=dict)
    generators: dict[str, Generator] = field(default_factory=dict)
    translators: dict[str, Translator] = field(default_factory=dict)

    def add(self, loaded: Model | Network) -> None:
        """Take one more. Raises ModelRefused where its name is taken."""
        name = loaded.spec.name if isinstance(loaded, Model) else loaded.name
        if name in [*self.models, *self.generators, *self.translators]:
            raise ModelRefused(f"{name}: want a name of its own, got one that another model has")
        if isinstance(loaded, Model):
            self.models[name] = loaded
        elif isinstance(loaded, Generator):
            self.generators[name] = loaded
        else:
            assert isinstance(loaded, Translator)  # noqa: S101 - there is nothing else
            self.translators[name] = loaded

    def networks(self) -> list[Network]:
        """Return the generators, their critics and the translators."""
        critics = (one.critic for one in self.generators.values() if one.critic is not None)
        return [*self.generators.values(), *critics, *self.translators.values()]


def servicers(
    limits: Limits, engine: Engine, served: Served, decoders: Executor, nets: Mapping[str, SafetyNet]
) -> Iterable[Callable[[grpc.aio.Server], None]]:
    """Return the generated functions that register the contract's servicers, each bound to its servicer."""
    intake = Intake(limits, decoders)
    codec = Codec(engine.models, intake, nets=nets)
    generate = GenerateServicer(engine, Generation(served.generators, intake))
    translate = TranslateServicer(engine, Translation(served.translators, intake))
    models = ModelServicer(engine, codec, served.generators, served.translators)
    return (
        partial(attack_pb2_grpc.add_AttackServiceServicer_to_server, AttackServicer(engine, codec)),
        partial(classify_pb2_grpc.add_ClassifyServiceServicer_to_server, ClassifyServicer(engine, codec)),
        partial(detect_pb2_grpc.add_DetectServiceServicer_to_server, DetectServicer(engine, codec)),
        partial(generate_pb2_grpc.add_GenerateServiceServicer_to_server, generate),
        partial(model_pb2_grpc.add_ModelServiceServicer_to_server, models),
        partial(translate_pb2_grpc.add_TranslateServiceServicer_to_server, translate),
    )


def limits(config: Config) -> Limits:
    """Return what a request may ask of this server at most."""
    return Limits(
        **config.limits.model_dump(include={field.name for field in fields(Limits)}),
        max_message_bytes=config.server.max_message_bytes,
        max_reply_bytes=config.server.max_reply_bytes,
    )


def load_models(config: Config, telemetry: Telemetry) -> Served:
    """Load and probe every model that the configuration names; all or none.

    Raises NotFound, ModelRefused, InvalidArgument for a device that is not there.
    """
    device = find_device(config.models.device)
    loaders: list[Callable[[], Model | Network]] = [
        *((lambda name=name: load_built_in(name, device)) for name in config.models.load),
        *((lambda path=path: load_manifest(path, device)) for path in config.models.manifests),
    ]
    served = Served()
    for load in loaders:
        began = time.perf_counter()
        model = load()
        seconds = time.perf_counter() - began
        name, licence = (model.spec.name, model.spec.licence)  # type: ignore[union-attr]  # every network has one
        served.add(model)
        telemetry.model_loaded(name, model.sha256, config.models.device, seconds)
        about = {"model": name, "sha256": model.sha256, "licence": licence, "seconds": round(seconds, 3)}
        _log.info("model loaded", extra=about)
    return served


def load_built_in(name: str, device: torch.device) -> Model | Network:
    """Load and probe a built-in classifier, generator or translator. Raises NotFound, ModelRefused."""
    known: dict[str, Callable[[], Model | Network]] = {
        **{one: partial(catalog.load, one, device) for one in catalog.available()},
        **{
            one: partial(synthesis.load, package, one, device)
            for package in (generators, translators)
            for one in synthesis.available(package)
        },
    }
    if name not in known:
        raise NotFound("model", name, difflib.get_close_matches(name, known))
    return known[name]()


def load_nets(config: Config, models: Mapping[str, Model]) -> Mapping[str, SafetyNet]:
    """Load the detectors of each model that has some: those of the configuration, else those that are shipped.

    Raises ModelRefused where a file is not of these models, or two are of one.
    """
    nets: dict[str, SafetyNet] = {}
    for path in config.models.detectors:
        name = calibration.read(path).model
        if name not in models or name in nets:
            raise ModelRefused(
                f"{path}: want detectors of a model without others, of those loaded, got {name}"
            )
        nets[name] = load_net(path, models[name])
    shipped = {name: built_in(model) for name, model in models.items() if name not in nets}
    return nets | {name: net for name, net in shipped.items() if net is not None}


def find_device(name: str) -> torch.device:
    """Return the device of this name. Raises InvalidArgument where torch does not see one."""
    kind, _, index = name.partition(":")
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name != "cpu" and not (kind == "cuda" and int(index or 0) < gpus):
        want = "want cpu, or cuda on a machine with a GPU that this torch sees"
        raise InvalidArgument("models.device", f"{want}, got {name!r}")
    # On a GPU: the same bits each time, and float32 that is float32.
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    return torch.device(name)


def warm_up(model: Model) -> None:
    """Run passes of the model's bucket, so that the first caller does not pay for first allocations."""
    x = torch.zeros(model.spec.bucket, *model.spec.shape, device=model.device)
    for _ in range(WARM_UP_PASSES):
        with torch.inference_mode():
            model(x)
        torch.autograd.grad(model(x.requires_grad_()).sum(), x)


async def watch_engine(engine: Engine, server: Server, hang_s: float) -> None:
    """Say NOT_SERVING while the engine gives no sign of life for hang_s, SERVING when it does again."""
    hangs = False
    while True:
        await asyncio.sleep(WATCH_S)
        age_s = engine.beat_age_s
        if (age_s > hang_s) != hangs:
            hangs = not hangs
            await server.set_serving(serving=not hangs)
            _log.log(
                logging.ERROR if hangs else logging.WARNING,
                "the engine hangs" if hangs else "the engine turns again",
                extra={"beat_age_s": round(age_s, 3)},
            )


async def serve(config: Config, leaving: Callable[[float], None] = lambda _: None) -> None:
    """Serve until SIGTERM or SIGINT, then drain and return.

    When it begins to leave, it calls `leaving` with the seconds after which something must be hanging. Raises
    EngineFailed, after telling callers and balancers, where the engine stops by itself, and EngineHangs where it
    does not end.
    """
    loop, asked = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)
    async with AsyncExitStack() as stack:
        starting = asyncio.create_task(stack.enter_async_context(App(config)))
        stop = asyncio.create_task(asked.wait())
        await asyncio.wait((starting, stop), return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            leaving(LEAVE_S)
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            return
        app = await starting
        failed = asyncio.create_task(app.failed.wait())
        await asyncio.wait((stop, failed), return_when=asyncio.FIRST_COMPLETED)
        _log.info("stopping", extra={"drain_s": config.server.drain_s, "failed": failed.done()})
        leaving(config.server.drain_s + LEAVE_S)
        stop.cancel()
        failed.cancel()
    if app.failed.is_set():
        raise EngineFailed("the engine has failed; see the log")
    if app.hangs:
        raise EngineHangs("the engine hangs in a model: want an end, got none")
    _log.info("stopped")

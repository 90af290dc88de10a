"""The server's settings: one tree, one name a setting everywhere.

    server.port        the key in iguana.toml        [server]  port = 7777
                       the variable                  IGUANA_SERVER__PORT=7777
                       the flag                      --server.port 7777

Flags win over the environment, the environment over the file, the file over the defaults below, which work as
they are. An unknown key or variable is refused with the names that come near.
"""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Literal, Self, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from iguana_server.errors import InvalidArgument

MIB = 1024 * 1024
PREFIX = "IGUANA_"
FOREIGN = (
    "IGUANA_CACHE",
    "IGUANA_CUDA",
    "IGUANA_CUDA_ARCHS",
    "IGUANA_REQUIRE",
    "IGUANA_SERVER",
)  # others' knobs
SHOWN = 80  # characters of a wrong value that a refusal quotes

Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=86400)]
Quantity = Annotated[int, Field(ge=1, le=2**63 - 1)]  # TOML's integers end there


class Group(BaseModel):
    """Settings that belong together: a table of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Server(Group):
    """Ports, connections, end of life."""

    host: str = Field(
        default="127.0.0.1", min_length=1, description="address to listen on; 0.0.0.0 or :: for all"
    )
    port: Port = Field(
        default=7777, description="port of gRPC; 0 lets the system choose (the log says which)"
    )
    metrics_port: Port = Field(default=9777, description="port of /metrics (HTTP); 0 lets the system choose")
    drain_s: float = Field(
        default=10, ge=0, le=3600, description="seconds that calls in flight have to end on SIGTERM"
    )
    drain_notice_s: float = Field(
        default=1,
        ge=0,
        le=600,
        description="seconds of drain_s between NOT_SERVING and the closing of the port",
    )
    reflection: bool = Field(default=True, description="serve gRPC reflection")
    max_message_bytes: int = Field(
        default=8 * MIB, ge=1024, le=256 * MIB, description="largest request, in bytes"
    )
    max_reply_bytes: int = Field(
        default=48 * MIB, ge=65536, le=1024 * MIB, description="largest reply, in bytes"
    )
    max_metadata_bytes: int = Field(
        default=8192, ge=1024, le=MIB, description="most metadata of a call, in bytes"
    )
    max_connection_streams: int = Field(
        default=128,
        ge=1,
        le=4096,
        description="most calls at once on one connection; more fail at the caller. Our client keeps itself "
        "below 100: under that, it fails too",
    )
    handshake_timeout_s: Seconds = Field(
        default=5, description="seconds a new connection may take to speak HTTP/2"
    )
    keepalive_s: Seconds = Field(default=20, description="seconds of silence after which a peer is pinged")
    keepalive_timeout_s: Seconds = Field(default=5, description="seconds a ping may stay unanswered")
    min_ping_interval_s: Seconds = Field(
        default=5,
        description="a client that pings more often than this, in seconds, is thrown off; stay below the "
        "clients' interval (ours: 20 s)",
    )
    max_connection_idle_s: Seconds = Field(
        default=300, description="seconds after which an idle connection is closed"
    )
    max_connection_age_s: Seconds = Field(
        default=1800,
        description="seconds after which a connection is renewed; its calls end first, without loss",
    )


class Limits(Group):
    """The largest requests taken. ModelService.ListModels tells them to callers."""

    max_images: int = Field(default=256, ge=1, le=4096, description="images of one request")
    max_image_bytes: int = Field(
        default=8 * MIB - 65536, ge=1, le=256 * MIB, description="bytes of one encoded image"
    )
    max_side: int = Field(
        default=4096, ge=1, le=65535, description="pixels of an encoded image's longer side"
    )
    max_pixels: int = Field(
        default=16_777_216, ge=1, le=178_000_000, description="pixels of an encoded image"
    )  # the decoder (Pillow) has a limit of its own: 178,956,970
    max_steps: int = Field(default=1000, ge=1, le=1_000_000, description="steps of an attack")
    max_queries: int = Field(
        default=10_000, ge=1, le=1_000_000, description="queries of an attack that sees answers only"
    )
    max_restarts: int = Field(default=32, ge=1, le=4096, description="restarts of an attack")
    max_waiting_cost: Quantity = Field(default=2**34, description="work that may wait, in pixels x steps")
    max_image_memory: Quantity = Field(
        default=2**31, description="bytes that the images of all requests in hand may take, 4 a number"
    )
    max_whole_pixels: int = Field(
        default=1_048_576,
        ge=1,
        le=178_000_000,
        description="pixels of a picture for a translator without tiles: a pass of it holds up all others",
    )
    max_stream_items: int = Field(
        default=64, ge=1, le=65536, description="items in flight on one bidirectional stream"
    )
    default_deadline_s: Seconds = Field(
        default=60, description="seconds a call has that came without a deadline"
    )
    max_deadline_s: Seconds = Field(
        default=3600, description="seconds any call has at most; a later deadline of the caller's ends here"
    )


class Models(Group):
    """What is served, and where it runs."""

    load: list[str] = Field(
        default=[
            *("efficientnet-lite0", "fashion-mnist-cnn"),
            "fashion-mnist-gan",
            *("sneaker-to-boot", "boot-to-sneaker", "outline-to-colour"),
        ],
        description="built-in classifiers, generators and translators, by name; "
        '"none" alone, as a flag, empties the list',
    )
    manifests: list[Path] = Field(
        default=[],
        description='files that describe models of your own (TOML); "none" alone, as a flag, empties the list',
    )
    detectors: list[Path] = Field(
        default=[],
        description="detectors of a model each, made by iguana-server calibrate, in place of those shipped; "
        '"none" alone, as a flag, empties the list',
    )
    device: str = Field(
        default="cpu", pattern=r"^(cpu|cuda(:[0-9]{1,3})?)$", description="cpu, cuda or cuda:N"
    )


class Threads(Group):
    """Threads, each beside the one event loop and the one engine thread."""

    torch: int = Field(
        default_factory=lambda: len(os.sched_getaffinity(0)),
        ge=1,
        le=1024,
        description="threads of one pass of a model on the CPU; all cores unless told",
    )
    decode: int = Field(default=2, ge=1, le=64, description="threads that decode and encode images")


class Engine(Group):
    """The step loop."""

    max_rows: int = Field(
        default=1024, ge=1, le=65536, description="rows of one model in flight; more wait in the queue"
    )
    # The longest honest turn, 32 rows of EfficientNet-Lite0 forward and 32 backward, takes some 3 s on one thread
    # (the table of process.py): ten times that is room for a crowded machine.
    hang_s: float = Field(
        default=30,
        ge=1,
        le=3600,
        description="seconds a model may take for its turn; health is NOT_SERVING while one takes longer",
    )


class Telemetry(Group):
    """Logs, metrics, traces."""

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="least level logged"
    )
    log_format: Literal["json", "text"] = Field(
        default="json", description="json: an object a line; text: for people"
    )
    otlp_endpoint: str | None = Field(
        default=None,
        pattern=r"^https?://[^/\s]+$",
        description='OTLP/gRPC collector of the traces, such as "http://localhost:4317"; none: no traces',
    )
    sample_ratio: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="share of calls traced, of those whose caller did not decide already",
    )
    exemplars: bool = Field(default=True, description="attach trace ids to the latency histogram")


_file: ContextVar[Path | None] = ContextVar("file", default=None)


class Config(BaseSettings):
    """All settings. `Config()` is the defaults and the environment; `Config.load` reads the file too."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True, validate_default=True
    )

    server: Server = Server()
    limits: Limits = Limits()
    models: Models = Models()
    threads: Threads = Threads()
    engine: Engine = Engine()
    telemetry: Telemetry = Telemetry()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (the interface is pydantic's)
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Rank the sources: arguments, environment, file."""
        env = EnvSettingsSource(settings_cls)
        env.env_vars = {name: value for name, value in env.env_vars.items() if "__" in name}
        return init_settings, env, TomlConfigSettingsSource(settings_cls, _file.get())

    @classmethod
    def load(cls, file: Path | None = None, flags: Mapping[str, object] | None = None) -> Self:
        """Read `file` (TOML), the environment and `flags`: values by key, such as {"server.port": 0}.

        Raises InvalidArgument, with every fault by its key.
        """
        unknown = tuple(_unknown_variables())
        if unknown:
            raise InvalidArgument.many(unknown)
        given: dict[str, dict[str, object]] = {}
        for key, value in (flags or {}).items():
            group, _, name = key.partition(".")
            given.setdefault(group, {})[name] = value
        if file is not None and not file.is_file():
            raise InvalidArgument("config", f"want a file, got {str(file)!r}")
        token = _file.set(file)
        try:
            return cls(**given)  # type: ignore[arg-type]  # pydantic checks them
        except ValidationError as error:
            raise InvalidArgument.many(_faults(error)) from None
        except tomllib.TOMLDecodeError as error:
            raise InvalidArgument(str(file), f"want TOML, got an error: {error}") from None
        except SettingsError as error:
            raise InvalidArgument("environment", f"want JSON for a list, got an error: {error}") from None
        finally:
            _file.reset(token)

    @model_validator(mode="after")
    def _agree(self) -> Self:
        """Refuse settings that contradict each other."""
        server, limits = self.server, self.limits
        for (key, value), (other, bound) in {
            ("server.drain_notice_s", server.drain_notice_s): ("server.drain_s", server.drain_s),
            ("limits.max_image_bytes", limits.max_image_bytes): (
                "server.max_message_bytes",
                server.max_message_bytes,
            ),
            ("limits.default_deadline_s", limits.default_deadline_s): (
                "limits.max_deadline_s",
                limits.max_deadline_s,
            ),
        }.items():
            if value > bound:
                raise InvalidArgument(key, f"want at most {other} = {bound}, got {value}")
        if not self.models.load and not self.models.manifests:
            raise InvalidArgument("models.load", "want a model here or in models.manifests, got none")
        return self

    def to_toml(self) -> str:
        """Return the settings as a file to start from: every key, with its description."""
        lines: list[str] = []
        for group, key, field in fields():
            table = getattr(self, group)
            if key == next(iter(type(table).model_fields)):
                lines += ["", f"[{group}]  # {type(table).__doc__}"]
            value = getattr(table, key)
            setting = f"{key} = {_toml(value)}" if value is not None else f"# {key} ="
            lines += [f"# {help_text(field)}", setting]
        return "\n".join(lines[1:]) + "\n"


def fields() -> Iterator[tuple[str, str, FieldInfo]]:
    """Yield group, name and declaration of every setting."""
    for group, declared in Config.model_fields.items():
        table = cast("type[Group]", declared.annotation)
        for name, field in table.model_fields.items():
            yield group, name, field


def help_text(field: FieldInfo) -> str:
    """Return what a setting is, with its range."""
    return f"{field.description}{_bounds(field)}"


def default_text(field: FieldInfo) -> str:
    """Return a setting's default in words."""
    if field.default_factory is not None:
        return "all cores"  # the only default that the machine decides
    return "none" if field.default is None else str(field.default)


def _bounds(field: FieldInfo) -> str:
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    said = [f"{sign} {getattr(m, a)}" for m in field.metadata for a, sign in signs.items() if hasattr(m, a)]
    return f" ({', '.join(said)})" if said else ""


def _toml(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_toml(v) for v in value)}]"
    if isinstance(value, Path):
        value = str(value)
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _keys() -> list[str]:
    return [f"{group}.{name}" for group, name, _ in fields()]


def _unknown_variables() -> Iterator[tuple[str, str]]:
    known = [PREFIX + key.replace(".", "__").upper() for key in _keys()]
    for name in sorted(os.environ):
        if name.startswith(PREFIX) and name not in known and name not in FOREIGN:
            yield name, _near(name, known)


def _near(name: str, known: list[str]) -> str:
    near = ", ".join(difflib.get_close_matches(name, known))
    return f"want a known name{near and f' (near: {near})'}, got an unknown one"


def _faults(error: ValidationError) -> Iterator[tuple[str, str]]:
    for fault in error.errors(include_url=False):
        key = ".".join(str(part) for part in fault["loc"])
        if fault["type"] == "extra_forbidden":
            names = _keys() if "." in key else list(Config.model_fields)
            yield key, _near(key, names)
            continue
        want = (
            fault["msg"]
            .removeprefix("Input should be ")
            .replace("String should match pattern", "text of the form")
        )
        got = repr(fault["input"])
        yield key, f"want {want}, got {got if len(got) <= SHOWN else got[:SHOWN] + '...'}"

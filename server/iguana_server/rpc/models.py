"""ModelService: what this server can do."""

from __future__ import annotations

from collections.abc import Mapping

from iguana.v1 import model_pb2 as pb
from iguana.v1 import model_pb2_grpc
from iguana_server.attacks.catalog import CATALOG
from iguana_server.engine.loop import Engine
from iguana_server.generators.base import Generator
from iguana_server.rpc.codec import Codec
from iguana_server.rpc.context import Context
from iguana_server.rpc.listing import (
    from_attack,
    from_generator,
    from_limits,
    from_model,
    from_translator,
)
from iguana_server.translators.base import Translator


class ModelServicer(model_pb2_grpc.ModelServiceServicer):
    """The answers never change while the server runs."""

    def __init__(
        self,
        engine: Engine,
        codec: Codec,
        generators: Mapping[str, Generator],
        translators: Mapping[str, Translator],
    ) -> None:
        """Tell of this engine's models, of these networks and of this codec's limits."""
        models = (from_model(model, codec.nets.get(name)) for name, model in sorted(engine.models.items()))
        self._models = pb.ListModelsResponse(
            models=models,
            limits=from_limits(codec.limits),
            generators=(from_generator(one) for _, one in sorted(generators.items())),
            translators=(from_translator(one) for _, one in sorted(translators.items())),
        )
        attacks = (from_attack(attack, codec.limits) for attack in CATALOG.values())
        self._attacks = pb.ListAttacksResponse(attacks=attacks)

    async def ListModels(  # noqa: N802 - the contract's name, as below
        self, request: pb.ListModelsRequest, context: Context
    ) -> pb.ListModelsResponse:
        """List the models and the limits."""
        return self._models

    async def ListAttacks(  # noqa: N802
        self, request: pb.ListAttacksRequest, context: Context
    ) -> pb.ListAttacksResponse:
        """List the attacks and their parameters."""
        return self._attacks

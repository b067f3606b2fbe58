"""`Service`: the models, the engine and the threads behind the routes."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import Any, TypeVar

import torch

from modernbert.errors import InputError, ResultError
from modernbert.inference.batching import Encoded, batch_tokens_for, by_item, sequences_of
from modernbert.inference.inputs import CutSide
from modernbert.inference.loading import device_of
from modernbert.inference.text_model import Use
from modernbert.serving.encoding import Truncation, require_fit
from modernbert.serving.engine import BatchEngine
from modernbert.serving.models import ServedModel
from modernbert.serving.queue import Job, JobQueue, Lane
from modernbert.serving.refusal import (
    Refusal,
    empty,
    invalid,
    overloaded,
    too_large,
    unsupported,
)
from modernbert.serving.schemas import SimilarityParameters, Truncating
from modernbert.serving.settings import ServingSettings
from modernbert.serving.telemetry import Telemetry, Timing

R = TypeVar("R")
O = TypeVar("O")  # noqa: E741


class Service:
    """What all requests share.

    models: at least one; the first that can do what a request asks is its model, unless it names
        another.

    Raises:
        InputError: no model, or two of one name.
    """

    def __init__(
        self, models: Sequence[ServedModel], settings: ServingSettings | None = None
    ) -> None:
        self.settings = settings or ServingSettings()
        self.models = {model.name: model for model in models}
        if not models or len(self.models) < len(models):
            raise InputError("models: expected one or more, each with a name of its own")
        self.telemetry = Telemetry()
        self.device: torch.device = device_of(models[0].encoder)
        self.batch_tokens = batch_tokens_for(self.device, self.settings.batch_tokens)
        queue = JobQueue(max_tokens=self.settings.max_queue_tokens, batch_tokens=self.batch_tokens)
        self.engine = BatchEngine(
            queue, self.telemetry, max_wait_seconds=self.settings.max_wait_seconds
        )
        self.threads = ThreadPoolExecutor(self.settings.tokenization_workers, "tokenization")
        self.num_running = 0
        self.is_draining = False

    def start(self) -> None:
        """Begin to compute."""
        self.engine.start()

    def close(self) -> None:
        """Finish what is under way, then end the threads."""
        self.engine.close()
        self.threads.shutdown()

    def model_for(self, abilities: Sequence[type], name: str | None, route: str) -> ServedModel:
        """The model of a request.

        Raises:
            Refusal: no model of that name, or none that has the ability.
        """
        if name in self.models:
            chosen = self.models[name]
        elif name is not None and len(self.models) > 1:
            known = ", ".join(self.models)
            raise Refusal(404, "NotFound", f"model: got {name!r}, expected one of {known}")
        else:
            able = (model for model in self.models.values() if model.can(abilities))
            chosen = next(able, next(iter(self.models.values())))
        if not chosen.can(abilities):
            raise unsupported(chosen.name, chosen.kind, route)
        return chosen

    def admit(self) -> None:
        """Refuse a request at once when there are too many.

        Raises:
            Refusal: as many requests as are allowed are under way, or the server is leaving.
        """
        if self.is_draining:
            raise Refusal(503, "Unhealthy", "the server is shutting down", retry_after=5)
        most = self.settings.max_concurrent_requests
        if self.num_running >= most:
            raise overloaded(
                f"{most} requests are under way, and no more are allowed",
                retry_after=self.engine.seconds_of_work(),
            )


class Call:
    """One request on its way: what it may use, and the account of its time.

    model: the one that answers it.
    """

    def __init__(self, service: Service, model: ServedModel) -> None:
        self.service, self.model = service, model
        self.settings = service.settings
        self.timing = Timing()

    async def run(
        self,
        use: Use[Any, Any, Any, O],
        items: Sequence[Any],
        name: str,
        truncation: Truncation,
        *,
        extra: int = 0,
        check: Callable[[Sequence[Encoded]], None] | None = None,
    ) -> Sequence[O]:
        """Run the items of a request through a use of its model.

        Args:
            use: What is done with them.
            items: One or more.
            name: The field of the request that they stand in.
            truncation: What becomes of items that are too long.
            extra: How many of the items do not count against the most that a request may have.
            check: Is given all sequences before they are computed, to refuse them.

        Raises:
            Refusal: Too many or too long items, too much to do already, or a failure of the model.
        """
        if not items:
            raise empty(name)
        self.require_few(len(items) - extra, name)
        try:
            self.timing.characters += sum(use.size(each) for each in items)
            encoded = await self.tokenize(use.encode, list(items))
        except InputError as error:
            raise Refusal(422, "Tokenizer", f"{name}: {error}") from None
        require_fit(encoded, truncation, use.max_seqlen, name)
        sequences = sequences_of(encoded)
        if check is not None:
            check(sequences)
        lane = self.model.lane(use.name, use.compute)
        results = await self.compute(lane, [each.token_ids for each in sequences])
        try:
            return await self.off_loop(use.results, encoded, by_item(encoded, results))
        except ResultError as error:
            raise Refusal(424, "Backend", f"{name}: {error}") from None

    def require_few(self, number: int, name: str) -> None:
        """Refuse too many texts.

        Raises:
            Refusal: more than are allowed.
        """
        if number > self.settings.max_inputs:
            raise too_large(
                f"{name}: got {number}, but a request may have {self.settings.max_inputs}; "
                "send several requests"
            )

    def truncation(self, request: Truncating | SimilarityParameters) -> Truncation:
        """What the request wants done with texts that are too long."""
        said = request.truncate
        side: CutSide = "left" if request.truncation_direction.lower() == "left" else "right"
        return Truncation(self.settings.auto_truncate if said is None else said, side)

    def right_alone(self, request: Truncating) -> Truncation:
        """As `truncation`, for a use that cuts texts on the right alone.

        Raises:
            Refusal: The request wants them cut on the left.
        """
        truncation = self.truncation(request)
        if truncation.side == "left":
            raise invalid("truncation_direction: this route cuts texts on the right alone")
        return truncation

    async def off_loop(self, function: Callable[..., R], *arguments: Any) -> R:
        """Run what takes long on another thread, so that other requests go on."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.service.threads, function, *arguments)

    async def tokenize(self, function: Callable[..., R], *arguments: Any) -> R:
        """`off_loop`, counted as tokenization."""
        began = monotonic()
        result = await self.off_loop(function, *arguments)
        self.timing.tokenization += monotonic() - began
        return result

    async def compute(self, lane: Lane, sequences: Sequence[Sequence[int]]) -> list[Any]:
        """The result of each sequence, in their order.

        Raises:
            Refusal: too many tokens, too much to do already, or a failure of the model.
        """
        jobs = [Job(lane, sequence) for sequence in sequences]
        self._count(jobs)
        self.service.engine.submit(jobs)
        try:
            results = await asyncio.gather(*(asyncio.wrap_future(job.future) for job in jobs))
        except BaseException:  # another of its texts failed, or nobody waits any more
            for job in jobs:
                job.abandon()
            raise
        self.timing.queue = sum(result.queue_seconds for result in results) / len(results)
        self.timing.inference = sum(result.inference_seconds for result in results) / len(results)
        return [result.value for result in results]

    def _count(self, jobs: Sequence[Job]) -> None:
        self.timing.tokens += sum(job.num_tokens for job in jobs)
        most = self.settings.max_request_tokens
        if self.timing.tokens > most:
            raise too_large(
                f"got {self.timing.tokens:,} tokens, but a request may have {most:,}; "
                "send several requests"
            )
        for job in jobs:
            self.service.telemetry.input_length.observe(job.num_tokens)

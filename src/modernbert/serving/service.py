"""`Service`: the models, the engine and the threads behind the routes."""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from threading import Thread
from time import monotonic
from typing import Any, TypeVar

import torch

from modernbert.errors import InputError, ResultError
from modernbert.inference.batching import Encoded, batch_tokens_for, by_item, sequences_of
from modernbert.inference.inputs import CutSide
from modernbert.inference.loading import device_of
from modernbert.inference.text_model import Use
from modernbert.serving.answers import (
    Refusal,
    empty,
    invalid,
    overloaded,
    too_many_tokens,
    unavailable,
    unsupported,
)
from modernbert.serving.bodies import HeldMemory, Hold, Truncation, num_bytes, require_fit
from modernbert.serving.engine import Admission, BatchEngine
from modernbert.serving.models import ServedModel
from modernbert.serving.queue import Computed, JobQueue, Lane, QueuedJob, all_done, parts_of
from modernbert.serving.schemas import SimilarityParameters, Truncating
from modernbert.serving.settings import ServingSettings
from modernbert.serving.telemetry import Telemetry, Timing

R = TypeVar("R")
O = TypeVar("O")  # noqa: E741

_LONG = 1 << 18
_WITH_SPANS = ("labels", "spans")  # names of uses
_COUNTED_AT_ONCE = 64


class Service:
    """The models, the engine and the threads that all requests share.

    Args:
        models: At least one; the first that can do what a request asks is its model, unless it
            names another.

    Raises:
        InputError: There is no model, or two have the same name.
    """

    def __init__(
        self, models: Sequence[ServedModel], settings: ServingSettings | None = None
    ) -> None:
        self.settings = settings or ServingSettings()
        self.models = {model.name: model for model in models}
        if not models:
            raise InputError("models: expected one or more")
        (name, count), *_ = Counter(model.name for model in models).most_common(1)
        if count > 1:
            raise InputError(f"models: {count} are named {name!r}; write NAME=MODEL to name them")
        self.telemetry = Telemetry()
        self.device: torch.device = device_of(models[0].encoder)
        self.batch_tokens = batch_tokens_for(self.device, self.settings.batch_tokens)
        self.engine = BatchEngine(
            JobQueue(batch_tokens=self.batch_tokens),
            self.telemetry,
            max_tokens=self.settings.max_queue_tokens,
            max_wait_seconds=self.settings.max_wait_seconds,
        )
        for model in models:
            model.encoder.pause_wanted = self.engine.queue.pause_wanted
        self.threads = ThreadPoolExecutor(self.settings.tokenization_workers, "tokenization")
        # Texts that take seconds have a thread of their own, and keep no others waiting.
        self.thread_of_long = ThreadPoolExecutor(1, "long texts")
        self.memory = HeldMemory(self.settings.max_held_bytes)
        self.num_running = 0  # from a request's head until its answer has been taken
        self.num_computing = 0  # those of them whose body has arrived
        self.is_draining = False

    def start(self) -> None:
        self.engine.start()

    def close(self, timeout_seconds: float | None = None) -> bool:
        """Finish the work in progress, then stop the threads.

        Args:
            timeout_seconds: How long to wait; None waits as long as it takes.

        Returns:
            Whether all threads have stopped.
        """
        closing = Thread(target=self._close, daemon=True)
        closing.start()
        closing.join(timeout_seconds)
        return not closing.is_alive()

    def _close(self) -> None:
        self.engine.close()
        for threads in (self.threads, self.thread_of_long):
            threads.shutdown(cancel_futures=True)

    def model_for(self, abilities: Sequence[type], name: str | None, route: str) -> ServedModel:
        """Return the model that answers a request.

        Raises:
            Refusal: No model has that name, or none has the ability.
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
        """Refuse a request that could not be answered, before its body is read.

        Raises:
            Refusal: The server is shutting down, or too many requests are in progress.
        """
        if self.is_draining:
            raise unavailable("the server is shutting down", retry_after=5)
        self._require_room()

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Count a request from the arrival of its body until its answer has been taken.

        Raises:
            Refusal: Too many requests are in progress.
        """
        self._require_room()
        self.num_computing += 1
        try:
            yield
        finally:
            self.num_computing -= 1

    def _require_room(self) -> None:
        most = self.settings.max_concurrent_requests
        if self.num_computing >= most:
            raise overloaded(
                f"{most} requests are in progress, which is the limit",
                retry_after=self.engine.seconds_of_work(),
            )


class Call:
    """One request in progress: what it may use, and its timing.

    Args:
        model: The model that answers it.
        hold: Counts the bytes that are held for it.
    """

    def __init__(self, service: Service, model: ServedModel, hold: Hold) -> None:
        self.service, self.model, self.hold = service, model, hold
        self.settings = service.settings
        self.timing = Timing()

    async def run(
        self,
        use: Use[Any, Any, Any, O],
        items: Sequence[Any],
        name: str,
        truncation: Truncation,
        *,
        check: Callable[[Sequence[Encoded]], None] | None = None,
    ) -> Sequence[O]:
        """Run the items of a request through a use of its model.

        Args:
            use: How the items are encoded and computed.
            items: One or more.
            name: The field of the request that contains them.
            truncation: What happens to items that are too long.
            check: Called with all sequences before they are computed; it may refuse them.

        Raises:
            Refusal: Too many or too long items, too much to do already, or a failure of the model.
        """
        if not items:
            raise empty(name)
        try:
            characters = sum(use.size(each) for each in items)
            self.timing.characters += characters
            encode = partial(self._encoded_if_few, use)
            encoded = await self.tokenize(characters, encode, list(items))
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

    def _encoded_if_few(self, use: Use[Any, Any, Any, Any], items: list[Any]) -> list[Any]:
        """Encode items, but where tokens have spans count them first: to free millions takes long.

        Raises:
            Refusal: There are more tokens than a request may have.
        """
        most = self.settings.max_request_tokens
        if use.name in _WITH_SPANS and sum(use.size(each) for each in items) > most:
            texts = [each if isinstance(each, str) else " ".join(each) for each in items]
            for start in range(0, len(texts), _COUNTED_AT_ONCE):
                part = texts[start : start + _COUNTED_AT_ONCE]
                most -= sum(map(len, self.model.tokenizer.encode_batch(part)))
                if most < 0:
                    raise too_many_tokens(self.settings.max_request_tokens)
        return list(use.encode(items))

    def truncation(self, request: Truncating | SimilarityParameters) -> Truncation:
        """Return what the request wants to happen to texts that are too long."""
        said = request.truncate
        side: CutSide = "left" if request.truncation_direction.lower() == "left" else "right"
        return Truncation(self.settings.auto_truncate if said is None else said, side)

    def right_alone(self, request: Truncating) -> Truncation:
        """Do as `truncation`, for a use that can truncate texts only on the right.

        Raises:
            Refusal: The request asks for truncation on the left.
        """
        truncation = self.truncation(request)
        if truncation.side == "left":
            raise invalid("truncation_direction: this route truncates texts only on the right")
        return truncation

    async def off_loop(self, function: Callable[..., R], *arguments: Any) -> R:
        """Run slow work in another thread, so that other requests proceed."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.service.threads, function, *arguments)

    async def tokenize(self, num_characters: int, function: Callable[..., R], *arguments: Any) -> R:
        """Run a function as `off_loop` does, and count its time as tokenization.

        Args:
            num_characters: The amount of text.
            function: The function to run.
            *arguments: Its arguments.
        """
        began, service = monotonic(), self.service
        threads = service.thread_of_long if num_characters > _LONG else service.threads
        loop = asyncio.get_running_loop()
        result = await loop.run_in_executor(threads, function, *arguments)
        self.timing.tokenization += monotonic() - began
        return result

    async def compute(self, lane: Lane, sequences: Sequence[Sequence[int]]) -> list[Any]:
        """Return the result of each sequence, in their order.

        Raises:
            Refusal: There are too many tokens, too much work is waiting, or the model failed.
        """
        request_tokens = sum(map(len, sequences))
        jobs = [QueuedJob(lane, sequence, request_tokens) for sequence in sequences]
        self._count(jobs)
        admission = self.service.engine.admit(jobs)
        try:
            results = await self._in_parts(admission, jobs)
        except BaseException:  # another of its texts failed, or nobody waits any more
            self.service.engine.give_up(jobs)
            raise
        finally:
            admission.close()
        self.timing.queue = sum(result.queue_seconds for result in results) / len(results)
        self.timing.inference = sum(result.inference_seconds for result in results) / len(results)
        return [result.value for result in results]

    async def _in_parts(self, admission: Admission, jobs: Sequence[QueuedJob]) -> list[Computed]:
        """Compute jobs about a batch at a time; one part is queued while another is computed."""
        results: list[Computed] = []
        queued: deque[Sequence[QueuedJob]] = deque()
        for part in parts_of(jobs, self.service.batch_tokens):
            admission.queue(part)
            queued.append(part)
            if len(queued) > 1:
                results += await self._results(queued.popleft())
        while queued:
            results += await self._results(queued.popleft())
        return results

    async def _results(self, jobs: Sequence[QueuedJob]) -> list[Computed]:
        await all_done([job.future for job in jobs])
        results = [job.future.result() for job in jobs]
        self.hold.add(sum(num_bytes(result.value) for result in results))
        return results

    def _count(self, jobs: Sequence[QueuedJob]) -> None:
        self.timing.tokens += sum(job.num_tokens for job in jobs)
        most = self.settings.max_request_tokens
        if self.timing.tokens > most:
            raise too_many_tokens(most)
        for job in jobs:
            self.service.telemetry.input_length.observe(job.num_tokens)

"""A composed reward in NeMo Gym: the ``verify`` of a resources server.

The server::

    from nemo_gym.base_resources_server import BaseVerifyRequest, BaseVerifyResponse, SimpleResourcesServer
    from rlaif_sdk.integrations.nemo_gym import verifier

    class Composed(SimpleResourcesServer):
        verify = verifier("rewards.yaml", BaseVerifyRequest, BaseVerifyResponse)

NeMo RL trains on such a server, as do the other trainers that speak to NeMo Gym.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from pydantic import BaseModel

from rlaif_sdk.integrations.host import Rewards, host
from rlaif_sdk.integrations.samples import Sample, answer_of, prompt_of
from rlaif_sdk.types import TextOrConversation

_OF_THE_PROTOCOL = frozenset({"responses_create_params", "response", "_ng_rollout_id", "capture_rollout_id"})


def verifier(
    rewards: Rewards,
    request: type[BaseModel],
    response: type[BaseModel],
    *,
    state: str | None = None,
) -> Callable[[Any, Any], Awaitable[Any]]:
    """An ``async verify(self, body)``.

    A sample's prompt is ``responses_create_params.input`` after its ``instructions``, its completion the items of the
    response's output as messages, in which what tools answered is a tool's (the text of one message of words alone), and its columns are all further
    fields of the request. The answer has the total as ``reward`` and each reward's own
    score as ``reward_components``, where the response has that field. An unscored sample has ``mask_sample`` set and
    ``failure_reason``, so that nothing is computed from it, and a ``reward`` of 0, since the field takes no other word.

    Args:
        rewards: A config or a composer; see `rlaif_sdk.integrations.Host`.
        request: ``BaseVerifyRequest``, or the server's own.
        response: ``BaseVerifyResponse``, or the server's own.
        state: A file with what the composer learned elsewhere.

    Raises:
        ConfigError: The composition's numbers would depend on how NeMo Gym cuts its calls, or ``response`` has no
            ``mask_sample``.
    """
    hosted = host(rewards, "NeMo Gym's verify", state=state)

    async def verify(self: Any, body: Any) -> Any:
        del self
        given = body.model_dump()
        scored = await hosted.ascore_one(sample_of({**given, **(body.model_extra or {})}))
        answer = {**given, "reward": 0.0 if scored.total is None else scored.total}
        if scored.total is None:
            if "mask_sample" not in response.model_fields:
                scored.number()
            answer |= {"mask_sample": True, "failure_reason": scored.reason}
        if "reward_components" in response.model_fields:
            answer["reward_components"] = {name: value for name, value in scored.rewards.items() if value is not None}
        return response(**answer)

    verify.__annotations__ = {"body": request, "return": response}
    return verify


def sample_of(body: Mapping[str, Any]) -> Sample:
    """The sample in the body of a request for verification."""
    columns = {name: value for name, value in body.items() if name not in _OF_THE_PROTOCOL}
    return Sample(_asked(body["responses_create_params"]), answer_of(body["response"]["output"]), columns)


def _asked(params: Mapping[str, Any]) -> TextOrConversation:
    """The input, after the instructions if there are any."""
    asked, instructions = params["input"], params.get("instructions")
    if not instructions:
        return prompt_of(asked)
    items = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked
    return prompt_of([{"role": "system", "content": instructions}, *items])

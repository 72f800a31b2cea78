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

from pydantic import BaseModel, ConfigDict

from rlaif_sdk.integrations.host import Rewards, host
from rlaif_sdk.integrations.samples import Sample, answer_of, prompt_of
from rlaif_sdk.types import TextOrConversation

_OPEN = ConfigDict(extra="allow")
_OF_THE_PROTOCOL = frozenset({"responses_create_params", "response", "capture_rollout_id"})


def verifier(
    rewards: Rewards,
    request: type[BaseModel],
    response: type[BaseModel],
    *,
    state: str | None = None,
) -> Callable[[Any, Any], Awaitable[Any]]:
    """An ``async verify(self, body)``.

    A sample's prompt is ``responses_create_params.input`` after its ``instructions``, its completion the items of the
    response's output as messages, in which a ``function_call`` is the policy's and its output a tool's (the text of one
    message of words alone), and its columns are all further fields of the request, whether ``request`` declares them or not.

    The answer has the total as ``reward``, its parts as ``reward_components``, which sum to it, and each reward's own score
    as ``rlaif/NAME``. An unscored sample has ``mask_sample``, and ``instance_config.mask_sample`` where NeMo RL reads it, and
    ``failure_reason``: it is not trained on. Its ``reward`` is 0, since the field takes no other word, and counts in its
    group's mean.

    Args:
        rewards: A config or a composer; see `rlaif_sdk.integrations.Host`.
        request: ``BaseVerifyRequest``, or the server's own.
        response: ``BaseVerifyResponse``, or the server's own.
        state: A file with what the composer learned elsewhere.

    Raises:
        ConfigError: The composition's numbers would depend on how NeMo Gym cuts its calls.
    """
    hosted = host(rewards, "NeMo Gym's verify", state=state)
    # NeMo Gym's own classes drop what they do not declare: the data set's columns, and what is said of a masked sample.
    asked = type(f"Composed{request.__name__}", (request,), {"__module__": __name__, "model_config": _OPEN})
    answered = type(f"Composed{response.__name__}", (response,), {"__module__": __name__, "model_config": _OPEN})

    async def verify(self: Any, body: Any) -> Any:
        del self
        given = body.model_dump()
        scored = await hosted.ascore_one(sample_of(given))
        answer = {
            **given,
            "reward": 0.0 if scored.total is None else scored.total,
            "reward_components": scored.parts(),
            **{f"rlaif/{name}": value for name, value in scored.known_scores().items()},
        }
        if scored.total is None:
            config = given.get("instance_config")
            masked = {**config, "mask_sample": True} if isinstance(config, Mapping) else {"mask_sample": True}
            answer |= {"mask_sample": True, "instance_config": masked, "failure_reason": scored.reason}
        return answered(**answer)

    verify.__annotations__ = {"body": asked, "return": answered}
    return verify


def sample_of(body: Mapping[str, Any]) -> Sample:
    """The sample in the body of a request for verification."""
    columns = {name: value for name, value in body.items() if name not in _OF_THE_PROTOCOL and name[:4] != "_ng_"}
    return Sample(_asked(body["responses_create_params"]), answer_of(body["response"]["output"]), columns)


def _asked(params: Mapping[str, Any]) -> TextOrConversation:
    """The input, after the instructions if there are any."""
    asked, instructions = params["input"], params.get("instructions")
    if not instructions:
        return prompt_of(asked)
    items = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked
    return prompt_of([{"role": "system", "content": instructions}, *items])

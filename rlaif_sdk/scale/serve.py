"""The reward server as a deployment of Ray Serve, with as many replicas as the load asks for."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlaif_sdk.exceptions import ConfigError, RlaifError, needs_extra
from rlaif_sdk.scale.cluster import Workers, connect, import_ray

if TYPE_CHECKING:
    from fastapi import FastAPI

    from rlaif_sdk.composer import Composer
    from rlaif_sdk.serving import ServeSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Autoscaling:
    """How many replicas there are.

    Attributes:
        least: Replicas that are always there.
        most: Replicas at most.
        requests: Requests under way that each should have; with more, replicas are added.
        cores: Cores that each has.
        gpus: The share of a GPU that each has.

    Raises:
        ConfigError: A number is out of range.
    """

    least: int = 1
    most: int = 4
    requests: int = 16
    cores: float = 1.0
    gpus: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.least <= self.most or self.most < 1 or self.requests < 1:
            raise ConfigError("least is from 0 to most, and most and requests are at least 1", key="autoscaling")
        if self.cores < 0 or self.gpus < 0:
            raise ConfigError("cores and gpus are 0 or more", key="autoscaling")


def deploy(
    config: str | Path | Mapping[str, Any],
    settings: ServeSettings | None = None,
    *,
    state: str | Path | None = None,
    autoscaling: Autoscaling | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    ssl_certfile: Path | None = None,
    ssl_keyfile: Path | None = None,
    access_log: bool = False,
    name: str = "rlaif",
    address: str | None = None,
    block: bool = False,
    started: Callable[[str], None] = lambda _: None,
) -> Any:
    """Run the reward server on Ray Serve.

    Each replica makes its composer once, and has queues, limits and metrics of its own. The server stays until
    `ray.serve.delete`, or, where Ray was started by this call, until this process ends.

    Args:
        config: The composition, as for `rlaif_sdk.serving.create_app`; all machines must reach a file under its path.
        settings: Limits and key of each replica.
        state: A composer's saved state; its statistics stay as they are.
        autoscaling: How many replicas there are.
        host: The address to bind to; another than loopback needs a key.
        port: The port; 0 takes that of a Ray Serve that runs already, else one that is free on this machine.
        ssl_certfile: The certificate, for TLS, which all machines must reach under its path.
        ssl_keyfile: Its key, likewise, where the certificate's file has none.
        access_log: Let Ray Serve log a line a request: its route and status, never its body.
        name: The application's name in Ray Serve.
        address: See `Workers`.
        block: Return when the server ends, which it does on SIGINT and SIGTERM, and not when it answers; from the main
            thread only.
        started: Called with the server's address when it answers.

    Returns:
        Ray Serve's handle of the deployment.

    Raises:
        ConfigError: The config is refused, a file is missing, the server would answer other machines without a key, or
            Ray Serve already runs on the cluster and answers at another address or over other TLS files.
        StateError: The saved state is of another composition.
        MissingExtraError: Ray Serve or the server's libraries are not installed.
        RlaifError: No cluster answers at the address, or the replicas do not start.
    """
    import_ray()
    from rlaif_sdk.composer import Composer
    from rlaif_sdk.serving import ServeSettings, create_app
    from rlaif_sdk.serving.server import KEEP_ALIVE, LocalOnly, check_tls
    from rlaif_sdk.serving.settings import check_exposure

    settings = settings or ServeSettings()
    scaling = autoscaling or Autoscaling()
    check_exposure(host, settings)
    check_tls(ssl_certfile, ssl_keyfile)
    source = config if isinstance(config, Mapping) else Path(config).resolve()
    saved = None if state is None else Path(state).resolve()
    with Composer.from_config(source) as composer:
        create_app(composer, settings, state=saved)
        if settings.cohort:
            _check_cohorts(composer, settings, scaling, state=saved)
    with needs_extra("ray", "Ray Serve, which runs the reward server on a cluster,"):
        from ray import serve
        from ray.exceptions import RayError
        from ray.serve.exceptions import RayServeException
    connect(Workers(address=address))

    def app() -> FastAPI:
        served = create_app(source, settings, state=saved)
        if settings.api_key is None:
            served.add_middleware(LocalOnly)
        return served

    deployment: Any = serve.deployment(
        serve.ingress(app)(),
        name="reward_server",
        max_ongoing_requests=max(scaling.requests, settings.max_queue // 4),
        ray_actor_options={"num_cpus": scaling.cores, "num_gpus": scaling.gpus},
        autoscaling_config={
            "min_replicas": scaling.least,
            "max_replicas": scaling.most,
            "target_ongoing_requests": scaling.requests,
        },
        **({"request_router_config": _one_replica_a_group()} if settings.cohort and scaling.most > 1 else {}),
    )
    http: dict[str, Any] = {"host": host, "port": port, "keep_alive_timeout_s": KEEP_ALIVE}
    if ssl_certfile is not None:
        certificate, key = ssl_certfile.resolve(), (ssl_keyfile or ssl_certfile).resolve()
        http |= {"ssl_certfile": str(certificate), "ssl_keyfile": str(key)}
    try:
        serve.start(http_options={**http, "port": port or _free_port(host)})
        answering = _check_running(http)
        handle = serve.run(deployment.bind(), name=name, logging_config={"enable_access_log": access_log})
    except (RayError, RayServeException, OSError, RuntimeError) as error:
        cause = getattr(error, "cause", None) or error  # Ray's own text is a remote traceback
        raise RlaifError(f"Ray Serve cannot start the server: {cause}", hint="see `serve status`") from error
    started(answering)
    if block:
        _wait_for_a_signal()
        serve.delete(name)
    return handle


def _check_cohorts(composer: Composer, settings: ServeSettings, scaling: Autoscaling, *, state: Path | None) -> None:
    """Refuse several replicas where they would tear groups apart, or each learn by itself.

    Raises:
        ConfigError: They would.
    """
    from rlaif_sdk.integrations.host import learns

    problems = {
        "what is learned, which several replicas would each learn by themselves": learns(composer),
        "a file with what is learned": state is not None,
        "steps that are counted": settings.groups_per_step is not None,
        "groups that are gathered by their prompt, which no request names": settings.cohort_size is not None,
    }
    if scaling.most > 1 and any(problems.values()):
        found = next(problem for problem, holds in problems.items() if holds)
        raise ConfigError(f"there is {found}", key="autoscaling", hint="run one replica: --max-replicas 1")
    if scaling.least != scaling.most and scaling.most > 1:
        raise ConfigError(
            "replicas that come and go would tear groups apart that are gathered",
            key="autoscaling",
            hint="give --min-replicas and --max-replicas the same number",
        )


def _one_replica_a_group() -> Any:
    """What has Ray Serve send all requests of a session, which is a group here, to one replica.

    Raises:
        ConfigError: This Ray has no such thing.
    """
    try:
        from ray.serve.config import RequestRouterConfig
        from ray.serve.experimental.consistent_hash_router import ConsistentHashRouter
    except ImportError as error:
        raise ConfigError(
            f"this Ray cannot send the members of a group to one replica: {error}",
            key="autoscaling",
            hint="install Ray 2.60 or later, or run one replica: --max-replicas 1",
        ) from error
    router: dict[str, Any] = {
        "request_router_class": ConsistentHashRouter,
        "request_router_kwargs": {"num_fallback_replicas": 0},
    }
    return RequestRouterConfig(**router)


def _check_running(asked: Mapping[str, Any]) -> str:
    """Where Ray Serve answers: its options are those of whoever started it on the cluster, and later ones are ignored.

    Raises:
        ConfigError: It does not answer as ``asked``, in which port 0 is any.
    """
    from ray.serve.context import _get_global_client  # Ray tells of the options in force nowhere else

    client: Any = _get_global_client()
    running = client.http_config
    host = f"[{running.host}]" if ":" in str(running.host) else running.host
    address = f"{'https' if running.ssl_certfile else 'http'}://{host}:{running.port}"
    names = ("host", *(["port"] if asked["port"] else []), "ssl_certfile", "ssl_keyfile")
    wanted = {name: asked.get(name) for name in names}
    found = {name: getattr(running, name) for name in names}
    differing = [name for name in names if wanted[name] != found[name]]
    if differing:
        told = "; ".join(f"{name} is {found[name] or 'unset'}, not {wanted[name] or 'unset'}" for name in differing)
        raise ConfigError(
            f"Ray Serve already runs on this cluster, at {address}, and cannot be set up otherwise: {told}",
            key=differing[0],
            hint="ask for what it has, end it with `serve shutdown`, or use a cluster without it",
        )
    return address


def _free_port(host: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _wait_for_a_signal() -> None:
    """Wait for SIGINT or SIGTERM, and leave the process's own handlers as they were."""
    told = threading.Event()
    before = {number: signal.signal(number, lambda *_: told.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        told.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

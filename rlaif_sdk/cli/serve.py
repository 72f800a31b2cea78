"""``rlaif serve``: a composition behind HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rlaif_sdk.cli.options import CompositionOption, Engine, RayAddressOption


def serve(
    config: CompositionOption,
    host: Annotated[str, typer.Option(help="The address to bind to; beyond this machine needs a key.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 takes a free one.")] = 8000,
    api_key_env: Annotated[
        str | None, typer.Option(help="The environment variable with the key that requests must carry.")
    ] = None,
    ssl_certfile: Annotated[Path | None, typer.Option(help="The certificate, for TLS.")] = None,
    ssl_keyfile: Annotated[Path | None, typer.Option(help="The certificate's key.")] = None,
    state: Annotated[
        Path | None,
        typer.Option(help="What the composer learned elsewhere; with --cohort where it keeps what it learns."),
    ] = None,
    max_body: Annotated[int, typer.Option(min=1, help="Bytes in a request at most.")] = 8_000_000,
    max_rows: Annotated[int, typer.Option(min=1, help="Rows in a request at most.")] = 1024,
    max_queue: Annotated[int, typer.Option(min=1, help="Rows under way at most; 429 beyond.")] = 4096,
    max_batch: Annotated[int, typer.Option(min=1, help="Rows that are scored together at most.")] = 64,
    in_flight: Annotated[int, typer.Option(min=1, help="Batches that are scored at once.")] = 2,
    timeout: Annotated[float, typer.Option(help="Seconds to read a request, and to score it.")] = 120.0,
    label_column: Annotated[str, typer.Option(help="The column for the labels of OpenRLHF and slime.")] = "label",
    prompt_key: Annotated[str, typer.Option(help="Where verl's extra_info has the prompt.")] = "prompt",
    unscored: Annotated[
        float | None, typer.Option(help="What OpenRLHF, verl and slime get for an unscored completion; else null.")
    ] = None,
    cohort: Annotated[
        bool, typer.Option("--cohort", help="Gather groups whose members come one by one, and learn from them.")
    ] = False,
    cohort_size: Annotated[
        int | None, typer.Option(min=1, help="Completions to a prompt, for requests that name no group.")
    ] = None,
    cohort_deadline: Annotated[float, typer.Option(help="Seconds that a group is waited for.")] = 300.0,
    groups_per_step: Annotated[
        int | None, typer.Option(min=1, help="Groups after which a step is counted, for requests that tell none.")
    ] = None,
    access_log: Annotated[bool, typer.Option("--access-log", help="Log a line a request.")] = False,
    engine: Annotated[Engine, typer.Option(help="What runs the server: this process, or Ray Serve.")] = Engine.local,
    min_replicas: Annotated[
        int | None, typer.Option(min=0, help="With Ray: replicas that are always there; default: 1.")
    ] = None,
    max_replicas: Annotated[int | None, typer.Option(min=1, help="With Ray: replicas at most; default: 4.")] = None,
    replica_requests: Annotated[
        int | None, typer.Option(min=1, help="With Ray: requests under way for each replica; default: 16.")
    ] = None,
    replica_cores: Annotated[
        float | None, typer.Option(min=0.0, help="With Ray: cores of each replica; default: 1.")
    ] = None,
    replica_gpus: Annotated[
        float | None, typer.Option(min=0.0, help="With Ray: the share of a GPU of each replica; default: 0.")
    ] = None,
    ray_address: RayAddressOption = None,
) -> None:
    """Serve a composition over HTTP, to trainers of any kind and to the reward `remote`.

    POST /v1/score, /get_reward (OpenRLHF), /compute_score (verl), /remote_rm (slime); GET /health, /metrics,
    /openapi.json. Ctrl-C or SIGTERM ends it when what is being scored is answered. With Ray, replicas come and go
    with the load, and limits and metrics are those of one replica.
    """
    asked = {
        "least": min_replicas,
        "most": max_replicas,
        "requests": replica_requests,
        "cores": replica_cores,
        "gpus": replica_gpus,
    }
    scaling = {name: value for name, value in asked.items() if value is not None}
    if engine is Engine.local and (scaling or ray_address is not None):
        raise typer.BadParameter("--min-replicas, --max-replicas, --replica-… and --ray-address need --engine ray")
    from rlaif_sdk.serving import ServeSettings, serve
    from rlaif_sdk.serving.settings import key_from_environment

    settings = ServeSettings(
        api_key=None if api_key_env is None else key_from_environment(api_key_env),
        max_body=max_body,
        max_rows=max_rows,
        max_queue=max_queue,
        max_batch=max_batch,
        in_flight=in_flight,
        timeout=timeout,
        label_column=label_column,
        prompt_key=prompt_key,
        unscored=unscored,
        cohort=cohort,
        cohort_size=cohort_size,
        cohort_deadline=cohort_deadline,
        groups_per_step=groups_per_step,
    )
    shared: dict[str, Any] = {
        "host": host,
        "port": port,
        "ssl_certfile": ssl_certfile,
        "ssl_keyfile": ssl_keyfile,
        "state": state,
        "access_log": access_log,
    }
    if engine is Engine.local:
        serve(config, settings, **shared)
        return
    from rlaif_sdk.scale import Autoscaling, deploy

    deploy(
        config,
        settings,
        **shared,
        autoscaling=Autoscaling(**scaling),  # type: ignore[arg-type]  # the counts are whole numbers
        address=ray_address,
        block=True,
        started=lambda url: typer.echo(f"Ray Serve running on {url} (Press CTRL+C to quit)"),
    )

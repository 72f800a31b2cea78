"""``rlaif export``: a reward model or classifier as a folder that scores by onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlaif_sdk.cli.options import SplitOption, SubsetOption
from rlaif_sdk.cli.output import print_table

if TYPE_CHECKING:
    from rlaif_sdk.io.tables import TableSource
    from rlaif_sdk.models.manifest import Manifest


def export(
    model: Annotated[
        str, typer.Argument(help="A hub name, a model's or adapter's folder, or the output folder of a training run.")
    ],
    folder: Annotated[Path, typer.Argument(help="The new folder.")],
    variant: Annotated[
        str, typer.Option(help="Of fp32, fp16, bf16 and int8, separated by commas; the first is the default one.")
    ] = "fp32",
    max_length: Annotated[
        int | None, typer.Option(help="Longest input in tokens; default: the model's, up to 2048.")
    ] = None,
    truncation_side: Annotated[str | None, typer.Option(help="left or right: where longer inputs are cut.")] = None,
    input: Annotated[  # noqa: A002 - the word of the manifest and of the reward's parameters
        str, typer.Option(help="What the model reads of a row of text: joined, pair or completion.")
    ] = "joined",
    texts: Annotated[
        Path | None,
        typer.Option(help="Texts to compare on: a table with a column text, or prompt and completion."),
    ] = None,
    split: SplitOption = None,
    subset: SubsetOption = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub model.")] = None,
    min_agreement: Annotated[
        float | None, typer.Option(min=0, max=1, help="Least rank agreement with PyTorch, in place of the variant's.")
    ] = None,
) -> None:
    """Export a reward model or classifier to ONNX, and compare it with PyTorch.

    Fails, and writes nothing, if a variant's scores differ beyond its tolerance. Prints the lines that make the export
    a reward.
    """
    from typing import get_args

    from rlaif_sdk.io.tables import TableSource
    from rlaif_sdk.models.export import export_classifier
    from rlaif_sdk.models.manifest import InputKind

    if truncation_side not in (None, "left", "right"):
        raise typer.BadParameter("must be left or right", param_hint="--truncation-side")
    if input not in get_args(InputKind):
        raise typer.BadParameter(f"must be one of {', '.join(get_args(InputKind))}", param_hint="--input")
    manifest = export_classifier(
        model,
        folder,
        variants=[name.strip() for name in variant.split(",")],
        max_length=max_length,
        truncation_side=truncation_side,  # type: ignore[arg-type]
        input=input,  # type: ignore[arg-type]
        texts=None if texts is None else _read_texts(TableSource(texts, subset, split)),
        revision=revision,
        min_agreement=min_agreement,
        report=lambda line: typer.echo(line, err=True),
    )
    print_parity(manifest)
    typer.echo(f"\nwrote {folder}; as a reward:\n\n{snippet(manifest, folder)}", nl=False)


def print_parity(manifest: Manifest) -> None:
    """Print the parity of every variant as a table."""
    rows = []
    for name, variant in manifest.variants.items():
        parity = variant.parity
        numbers = (
            f"{parity.max_difference:.2g}",
            f"{parity.spread:.3g}",
            f"{parity.pearson:.5f}",
            f"{parity.spearman:.5f}",
        )
        rows.append((name, *numbers, f"{parity.flipped:.2%}", str(parity.rows)))
    headings = ("variant", "max difference", "spread", "Pearson", "rank agreement", "flipped", "inputs")
    print_table(headings, rows, numbers=True)


def snippet(manifest: Manifest, folder: Path) -> str:
    """The lines of a composition's config that use an export as a reward."""
    import yaml

    params: dict[str, str] = {"model": str(folder)}
    if len(manifest.labels) > 1:
        params["label"] = manifest.labels[-1]
    document = {"rewards": {"preference": {"use": "onnx", "weight": 1.0, "params": params}}}
    return yaml.safe_dump(document, sort_keys=False)


def _read_texts(source: TableSource) -> list[str]:
    from rlaif_sdk.conversations import ASSISTANT, USER, view
    from rlaif_sdk.exceptions import DataError
    from rlaif_sdk.io.tables import read_rows

    texts = []
    for number, record in enumerate(read_rows(source), start=1):
        parts = [
            view(record[name], "transcript", role=role)
            for name, role in (("prompt", USER), ("completion", ASSISTANT))
            if name in record
        ]
        text = record.get("text", "".join(parts) if parts else None)
        if not isinstance(text, str):
            raise DataError("has no text", file=str(source), row=number, hint="a column text, or prompt and completion")
        texts.append(text)
    return texts

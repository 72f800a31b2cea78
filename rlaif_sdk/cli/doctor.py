"""``rlaif doctor``: what is installed, what would run where, and what is wrong."""

from __future__ import annotations

import typer


def doctor() -> None:
    """Check this installation: versions, devices, plugins, and known conflicts. Exits with 1 if something is wrong."""
    from rich.console import Console
    from rich.table import Table

    from rlaif_sdk.diagnosis import diagnose

    table = Table(box=None, pad_edge=False)
    for heading in ("", "what", "found"):
        table.add_column(heading)
    findings = list(diagnose())
    marks = {"ok": "[green]ok[/green]", "absent": "[dim]-[/dim]", "wrong": "[red]wrong[/red]"}
    for finding in findings:
        table.add_row(marks[finding.state], finding.subject, finding.message)
    Console().print(table)
    if any(finding.state == "wrong" for finding in findings):
        raise typer.Exit(1)

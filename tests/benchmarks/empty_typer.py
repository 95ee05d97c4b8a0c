"""The smallest Typer application: the yardstick for start-up time."""

from __future__ import annotations

import typer

app = typer.Typer()


@app.callback()
def main() -> None:
    """Nothing."""


@app.command()
def nothing() -> None:
    """Nothing."""


if __name__ == "__main__":
    app()

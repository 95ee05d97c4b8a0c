"""One file for each command, which parses, calls one stage, renders and exits.

In: options and arguments, as typer gives them. Out: what the terminal shows, or an error for `app.py`. A newcomer adds
a command here; options that another command has too come from `terminal/`.
"""

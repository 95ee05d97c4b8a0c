"""The command line: each command parses, calls one stage, renders, exits.

In: words. Out: an exit code. A newcomer mounts a command in `app.py`, which alone catches errors.
"""

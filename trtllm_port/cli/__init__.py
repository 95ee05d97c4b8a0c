"""The command line: turns words into calls of stages, and results into text and exit codes.

In: the words of a command. Out: what is printed, and the exit code, which `app.py` makes of every outcome. A newcomer
adds a command as a file in `commands/` and mounts it in `app.py`.
"""

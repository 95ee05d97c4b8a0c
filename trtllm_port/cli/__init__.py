"""The command line: `app.py` mounts the commands and turns every outcome into an exit code.

In: the words of a command line. Out: results on stdout, everything else on stderr, an exit code. A newcomer adds a
command to `commands/`.
"""

"""One file for each command: it parses, calls one stage, renders, exits.

In: options, as `terminal/options.py` declares the shared ones. Out: an exit code. A newcomer adds a command here and
mounts it in `app.py`; what another command shows too, it renders in `terminal/`.
"""

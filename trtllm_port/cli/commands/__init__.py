"""One file for each command: it parses, calls one stage, renders, exits.

In: options. Out: an exit code. A newcomer adds a command here, and imports the stage that it calls in its body.
"""

"""One file for each command: it parses, calls one stage, renders, exits. A newcomer adds a command here."""

"""The command line: each command parses, calls one stage, renders, exits."""

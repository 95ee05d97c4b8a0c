"""The intermediate forms that the phases hand on: the record in a `Trace`, the nodes of a `Block`, expressions.

They are data, with what one can ask of them (`def_use.py`, `structure.py`, `alignment.py`); what to make of them the
phases decide. A newcomer adds a form of node to `nodes.py`, a rule or recogniser that makes it, and a method of the
`Printer` that prints it.
"""

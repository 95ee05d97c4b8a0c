"""Phase 8: the text of a port, for whose numbers and conditions the solver is asked.

In: `PortClass`. Out: `model.py`, `config.py`, `convert.py`, and the ledger of config keys. A newcomer adds how a node
of a new form is printed (`printing.py`), or another file of a port (`source.py`).
"""

"""Phase 7: the text of a port.

In: `PortClass`. Out: `model.py`, `config.py`, `convert.py` and the ledger of config keys.
"""

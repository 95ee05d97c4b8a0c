"""Phase 5: blocks of all traces and layers merged into classes.

In: `Lowered` of each trace. Out: `PortClass`, where what differs is a symbol or a branch.
"""

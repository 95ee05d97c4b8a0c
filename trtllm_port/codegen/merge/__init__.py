"""Phase 6: the blocks of all traces and layers merged into classes.

In: the `Lowered` of each trace. Out: `PortClass`, inner ones first, in which what differs between instances is a
`SymbolicValue` or a branch. A newcomer adds what may differ.
"""

"""Phase 7: values that differ between instances as expressions of the config.

In: a value for each instance, and the symbols that an expression may use. Out: an `Expression`, or None. A newcomer
adds a symbol, an operator, or a kind of condition.
"""

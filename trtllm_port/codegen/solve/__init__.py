"""Phase 6: numbers that differ between traces as expressions of the config.

In: a value for each instance. Out: an `Expression`. A newcomer adds an operator or a kind of operand.
"""

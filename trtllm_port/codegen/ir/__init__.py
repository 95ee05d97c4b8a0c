"""The intermediate forms that the phases hand on: the record of a trace, the nodes of a block, expressions.

Nothing is computed here that a phase decides. A newcomer adds a form of node here, and what makes and prints it there.
"""

"""What commands share: the only place that prints, options, and how results look.

In: results of stages. Out: text on the terminal. A newcomer adds an option that several commands have.
"""

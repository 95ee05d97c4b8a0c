"""What commands share: the only place that prints, options, and how the results look that several commands show.

In: results of stages. Out: text or JSON on the terminal. A newcomer adds an option that several commands take, or a
rendering, as a function that calls `console.line` and `console.table`.
"""

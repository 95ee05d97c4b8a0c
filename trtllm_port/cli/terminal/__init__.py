"""What commands share: the only place that prints, common options, and how results look.

In: results of stages. Out: text on stdout and stderr, or JSON. A newcomer adds the rendering of a result here.
"""

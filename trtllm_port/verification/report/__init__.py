"""The report: frozen data, and its renderings as JSON, HTML and JUnit.

In: the phases' results. Out: a report directory. A newcomer adds a rendering.
"""

"""The report: frozen data, JSON first, and its renderings as HTML and JUnit.

In: the phases' results, or the error of a port that cannot be run. Out: `Report`, and a report directory. A newcomer
adds a rendering of the JSON form, or a step to `advice.py`.
"""

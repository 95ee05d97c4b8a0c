"""The ground: files, names, and what others wrote. Knows neither models nor ports.

In: paths, bytes and texts from outside. Out: files that are whole or absent, digests, errors that name what was wrong,
texts that are safe where they are printed. A newcomer adds here what several rooms need and none of them owns.
"""

"""The ground: files, names, and words from outside. Knows neither torch's models nor ours.

In: paths, bytes and texts that others wrote. Out: files that are whole or absent, digests, errors that name what was
wrong, and texts that are safe where they are printed. A newcomer adds here what every room may need and none owns.
"""

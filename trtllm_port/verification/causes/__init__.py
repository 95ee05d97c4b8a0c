"""Why a module is wrong, and which line of the source that is: signatures, evidence, places.

In: a comparison that failed. Out: `Cause`, `Place`. A newcomer adds a signature; replayed hypotheses are next door.
"""

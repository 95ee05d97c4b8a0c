"""The stage `demo`: the whole way on the model that ships with the package.

In: a directory to work in. Out: the port that `new` writes, and `verify`'s report about it. A newcomer adds a step of
the tour in `tour.py`; the model and its articles are `shipped_model`'s.
"""

from trtllm_port.shipped_model import ARTICLES, MODEL_DIR

__all__ = ["ARTICLES", "MODEL_DIR"]

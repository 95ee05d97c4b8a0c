"""The stage `demo`: the whole way on the model that ships with the package.

In: an empty directory. Out: a workspace with a port and its report. A newcomer adds a step to the tour.
"""

from trtllm_port.shipped_model import ARTICLES, MODEL_DIR

__all__ = ["ARTICLES", "MODEL_DIR"]

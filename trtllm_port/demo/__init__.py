"""The stage `demo`: the whole way on the model that ships with the package."""

from trtllm_port.shipped_model import ARTICLES, MODEL_DIR

__all__ = ["ARTICLES", "MODEL_DIR"]

"""The ports of this workspace: Hugging Face's architecture name → port class."""

from __future__ import annotations

MODEL_MAP: dict[str, type] = {}

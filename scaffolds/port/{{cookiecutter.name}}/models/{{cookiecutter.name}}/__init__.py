"""Port of {{ cookiecutter.architecture }} to native TensorRT."""

from __future__ import annotations

from .model import {{ cookiecutter.architecture }}

__all__ = ["{{ cookiecutter.architecture }}"]

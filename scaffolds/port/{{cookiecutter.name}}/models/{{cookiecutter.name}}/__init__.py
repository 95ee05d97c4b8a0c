"""Port of {{ cookiecutter.architecture }} to native TensorRT."""

from __future__ import annotations

from .model import {{ cookiecutter.class_name }}

__all__ = ["{{ cookiecutter.class_name }}"]

"""An explainer file behind HTTP: the KServe v2 inference protocol, batching, limits, metrics (extra `serve`)."""

from .app import make_app
from .running import serve
from .settings import Settings

__all__ = ["Settings", "make_app", "serve"]

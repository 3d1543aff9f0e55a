"""The arguments of the public functions: checked against one table, and made plain, before any work is done."""

from .checked import checked
from .plain import plain

__all__ = ["checked", "plain"]

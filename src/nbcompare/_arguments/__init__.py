"""The arguments of the public functions: checked against one table, and made plain, before any work is done."""

from nbcompare._arguments.checked import checked
from nbcompare._arguments.plain import plain

__all__ = ["checked", "plain"]

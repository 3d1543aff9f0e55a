"""nbcompare."""

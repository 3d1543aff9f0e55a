"""From cells to sums: refuse what are not counts, sum by group for every kind of matrix, size factors. Arrays only."""

"""The pre-trained network: posterior of a comparison of two groups, given the data set's prior."""

"""Hidden factors: directions in which samples differ for unknown reasons, estimated from residuals and adjusted for."""

"""Statistics of a model's layers, collected from calibration data."""

"""The safety net: detectors of forged pictures, one a file, and how they are calibrated on clean ones."""

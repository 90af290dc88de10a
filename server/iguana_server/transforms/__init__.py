"""Differentiable transforms of pictures: what a camera, a printer or a file does to them.

Each is a pure function of images [n, C, H, W] in [0, 1] and of parameters [n], one a row. A row's bits
depend on its own pixels and parameters alone: parameters meet no vectorised sine or exponential (the last
few elements of a vector are computed otherwise than the rest), and nothing is summed over rows.
"""

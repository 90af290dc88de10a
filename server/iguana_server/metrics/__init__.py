"""How good made pictures are, as numbers of features and pixels: nothing here loads a model or reads a file.

The field's own judge is people: HYPE (Zhou et al. 2019, arXiv:1904.01121) is the share of a viewer's mistakes over
50 real and 50 made pictures, with a bootstrap interval. It needs viewers; it will be a file of this package, beside
the others, when there is a page on which they can look.
"""

"""Training on clean pictures: SGD with momentum under one cycle, Smith 2018, arXiv:1803.09820."""

from iguana_server.training.recipe import Recipe


class Standard(Recipe):
    """Minimise CE(x). The weights know nothing of attacks."""

    name = "standard"
    paper = "Smith 2018, arXiv:1803.09820"

"""`iguana-server evaluate robustness`: how much of a data set a model still sees rightly under attack."""

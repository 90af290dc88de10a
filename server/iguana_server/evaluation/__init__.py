"""`iguana-server evaluate`: robustness under attack, made pictures beside real ones, what synthetic data give away."""

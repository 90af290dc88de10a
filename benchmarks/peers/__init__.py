"""Who attacks: the libraries as their users run them, Iguana, and the limit, each in a process of its own.

A contender is a module here with

    ATTACKS                       what it has of fgsm, pgd, pgdl2, mifgsm, apgd
    contender(victim)             a context manager that yields run(task) -> forged images [n, C, H, W]

worker.py is the process, proxy.py its other end; nothing is imported here, as a worker sets its allocator before
torch.
"""

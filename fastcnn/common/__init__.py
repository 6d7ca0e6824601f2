"""What several floors share: geometry of windows, the counter-based generator, activation formulas.

Everything here is plain Python on scalars (or NumPy arrays), without a compiler's decorator: each floor
compiles these functions with its own flags.
"""

"""Measuring: every kernel beside its NumPy reference, what a user would pick instead, and the machine's own limits.

One benchmark is one `cases.Case`, described in the file of its family under `families/`; how each library runs it
stands in the file of that library under `runners/`. `command` drives them; `benchmarks/` is thin over both.
"""

"""How fast it is: ratios against a baseline in the same run, never a test with a time limit.

``make bench`` runs ``python -m tests.benchmarks``. What is measured and what was found:
docs/explanation/performance.md.
"""

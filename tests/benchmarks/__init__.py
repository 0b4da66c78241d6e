"""How fast it is: ratios against a baseline in the same run, never a test with a time limit.

``make bench`` runs ``python -m tests.benchmarks``. The measurements and their results are in
docs/explanation/performance.md.
"""

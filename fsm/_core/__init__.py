"""The pure part: no clock, no chance, no I/O. Decisions are functions over frozen values."""

"""The behaviour kit: check that a store, a provider or an application keeps the guarantees."""

from fsm.testing.reference import ReferenceStore

__all__ = ["ReferenceStore"]

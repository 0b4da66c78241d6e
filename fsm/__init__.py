"""Conversations with an AI that survive the death of their provider session."""

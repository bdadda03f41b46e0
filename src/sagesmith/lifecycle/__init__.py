"""Lifecycles as pure code: state and event in, next state and commands out. No clock, database or process here."""

"""What tests share; tests import it, never one another."""

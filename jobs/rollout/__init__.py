"""Promotion: makes a version that passed the gate serve, and verifies it."""

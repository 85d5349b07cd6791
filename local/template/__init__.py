"""Reads template.yaml: what it declares, and the values of its parameters, conditions and intrinsic functions."""

"""Runs the functions: execution environments, their Runtime API, the Invoke API and its client, and sam local."""

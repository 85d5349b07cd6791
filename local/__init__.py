"""Runs template.yaml on this machine.

`python -m local` has the commands. `background` starts a run as a process of its own, and `foreground` is that
process: it starts `services`, reads the `template`, and serves its functions (`lambda_runtime`) to what invokes them
(`http_api`, `event_sources`).
"""

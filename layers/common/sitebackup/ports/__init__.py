"""What the use cases need from outside, as Protocols. Adapters implement them, and so do the fakes of the tests.

Each promise here is a test of a contract suite in tests/contract, which runs against every implementation.

Common to all:
- Unless a method says otherwise it may be called again with the same arguments, and the second call changes nothing.
- `Unavailable` says that a system the service stands on does not answer. Its outcome is unknown: a write may have
  happened. The adapter itself has tried once more where that was safe. The caller lets the error pass, so that the
  Kafka record or the HTTP request is tried again by its sender.
- `Transient` says that the same call may work later, and the caller decides when. `Permanent` says that it will not.
- No call waits for ever. Those with `time_left` wait no longer than that says, the others a few seconds.
- Implementations may be shared by threads.
"""

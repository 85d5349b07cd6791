"""What the errors carry beside their kind."""

from datetime import timedelta

from sitebackup.domain.errors import Permanent, RequestError, Transient
from sitebackup.domain.reason import Code, Reason


def test_an_error_says_what_happened_and_what_follows() -> None:
    wait = timedelta(seconds=3)
    assert (str(Transient("503.", wait)), Transient("503.", wait).retry_after) == ("503.", wait)
    assert Transient("503.").retry_after is None
    permanent = Permanent(Code.EXPORT_NOT_FOUND, "404.")
    assert (str(permanent), permanent.reason) == ("404.", Reason(code=Code.EXPORT_NOT_FOUND, message="404."))
    refused = RequestError("It is active.", jobId="1")
    assert (str(refused), refused.members) == ("It is active.", {"jobId": "1"})

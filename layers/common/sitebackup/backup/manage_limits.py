"""What a user may have, and how much of it is used."""

from dataclasses import dataclass

from ..domain.principal import Access
from ..domain.quota import Limits, Quota
from .quotas import Quotas, Usage


class PutLimits(Limits, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `PUT /users/{userId}/limits`: all exceptions of the user. The defaults hold for what it leaves out.

    An error about a field quotes its description.
    """


@dataclass(frozen=True)
class ManageLimits:
    """Each call raises RepositoryUnavailable."""

    quotas: Quotas

    def put(self, access: Access, user_id: str, limits: Limits) -> dict[Quota, Usage]:
        """Sets the exceptions of a user, in place of those before. What is over a lower limit stays.

        Raises ServiceOnly.
        """
        access.check_service()
        self.quotas.repository.set_limits(user_id, limits)
        return self.quotas.usage(user_id)

    def usage(self, access: Access, user_id: str) -> dict[Quota, Usage]:
        """How the user stands, all sites together. Raises NotYourUser."""
        access.check(user_id)
        return self.quotas.usage(user_id)

"""Who calls, and what a call of theirs may reach (I21).

A query for a caller takes an `Access`, which only a principal makes and only for a scope that it holds. So no query
can be written that forgets whose documents it is about.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from enum import StrEnum

from .errors import BadRequest, MissingScope, NotFound, NotYourUser, ServiceOnly


class Scope(StrEnum):
    """What a token must hold for a call. A service holds all of them."""

    READ = "backup:read"
    """See how things stand."""
    WRITE = "backup:write"
    """Make backups and schedules, and change them."""
    RESTORE = "backup:restore"
    """Get data back: restores and download links."""
    DELETE = "backup:delete"
    """Delete backups and schedules."""


@dataclass(frozen=True)
class Claims:
    """Which claims of a token say who calls."""

    user: str = "sub"
    sites: str | None = None
    """None: a user's token is for all of their sites."""


@dataclass(frozen=True)
class Service:
    """A caller that signs with AWS IAM. It may act for every user, and names the user."""

    name: str
    """Its ARN."""

    def may(self, scope: Scope) -> "Access":
        """What a call that needs this scope may reach."""
        return Access(self, None, None)


@dataclass(frozen=True)
class User:
    """A caller with a token, which is bound to one user."""

    user_id: str
    sites: frozenset[str] | None
    """None: all of the user's."""
    scopes: frozenset[str]

    def may(self, scope: Scope) -> "Access":
        """What a call that needs this scope may reach. Raises MissingScope."""
        if scope not in self.scopes:
            raise MissingScope(f"The token has no scope {scope}.", scope=scope)
        return Access(self, self.user_id, self.sites)


type Principal = Service | User


@dataclass(frozen=True)
class Access:
    """What one call may reach."""

    principal: Principal
    user_id: str | None
    """Only this user's; None: every user's."""
    sites: frozenset[str] | None
    """Only of these sites; None: of all."""

    def sees(self, user_id: str, sites: Collection[str]) -> bool:
        """Whether what belongs to this user, and concerns these sites, is within reach."""
        if self.user_id is not None and user_id != self.user_id:
            return False
        return self.sites is None or self.sites.issuperset(sites)

    def narrowed(self, user_id: str, site_id: str) -> "Access":
        """What of it concerns this site alone: for what everybody is shown who may reach that."""
        return replace(self, user_id=user_id, sites=frozenset({site_id}))

    def check(self, user_id: str, *sites: str) -> None:
        """For a call that names whom it is for. Raises NotYourUser, or NotFound for a site out of reach."""
        if self.user_id is not None and user_id != self.user_id:
            raise NotYourUser("userId: it is not the one that the token is for")
        for site_id in sites:
            if self.sites is not None and site_id not in self.sites:
                raise NotFound(f"There is no site {site_id}.")

    def check_service(self) -> None:
        """For a call that no user may make. Raises ServiceOnly."""
        if isinstance(self.principal, User):
            raise ServiceOnly("Only a service may do this.")

    def one_user(self, named: str | None) -> str:
        """The user that a call is for, who need not name themselves. Raises NotYourUser, BadRequest."""
        found = self.any_user(named)
        if found is None:
            raise BadRequest("userId: required, as a service may act for every user")
        return found

    def any_user(self, named: str | None) -> str | None:
        """As `one_user`, for lists; None: those of all users. Raises NotYourUser."""
        if named is not None:
            self.check(named)
        return named or self.user_id


OWN_WORK = Service("the service itself").may(Scope.READ)
"""What work that nobody has called for may reach: everything."""

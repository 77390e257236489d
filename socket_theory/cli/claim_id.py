"""Claims named on the command line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from socket_theory.core.claim import Claim


class ClaimID(click.ParamType):  # type: ignore[type-arg]  # not generic before click 8.4
    """An ID or a family's letter, in any case, which a shell completes."""

    name = "id"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from socket_theory.claims.registry import CLAIMS

        typed = incomplete.lower()
        return [CompletionItem(claim.id, help=claim.title) for claim in CLAIMS if claim.id.lower().startswith(typed)]


def chosen_claims(claims: Sequence[Claim], patterns: Iterable[str], hint: str) -> tuple[Claim, ...]:
    """Those of `claims` that a pattern names, in their order; all where there is no pattern."""
    from socket_theory.core.claim import select

    try:
        chosen = {claim.id for pattern in patterns for claim in select(claims, pattern)}
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=hint) from None
    return tuple(claim for claim in claims if not patterns or claim.id in chosen)

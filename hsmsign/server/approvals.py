"""ApprovalService."""

from __future__ import annotations

from hsmsign.keyring.approvals import Approvals
from hsmsign.model.caller import Caller
from hsmsign.policy import Action
from hsmsign.server import wire
from hsmsign.server.guard import Call
from hsmsign.server.rights import Rights
from hsmsign.store import ApprovalRow
from hsmsign.v1 import approvals_pb2


class ApprovalService:
    """What waits for others."""

    def __init__(self, approvals: Approvals, rights: Rights) -> None:
        self._approvals = approvals
        self._rights = rights

    async def ListApprovals(
        self, request: approvals_pb2.ListApprovalsRequest, call: Call
    ) -> approvals_pb2.ListApprovalsResponse:
        """A page: those of it that concern the caller, so it may be shorter than what was asked for."""
        rows, token = await self._approvals.list(
            key=request.key,
            everything=request.show_all,
            page_size=request.page_size,
            page_token=request.page_token,
        )
        seen = [self._told(row) for row in rows if await self._concerns(call.caller, row)]
        return approvals_pb2.ListApprovalsResponse(approvals=seen, next_page_token=token)

    async def GetApproval(self, request: approvals_pb2.GetApprovalRequest, call: Call) -> approvals_pb2.Approval:
        """One."""
        row = await self._approvals.get(request.name)
        if row.requester != call.caller.name:
            await self._rights.to(call.caller, Action.APPROVE, f"keys/{row.key}")
        return self._told(row)

    async def GrantApproval(self, request: approvals_pb2.GrantApprovalRequest, call: Call) -> approvals_pb2.Approval:
        """Yes."""
        row = await self._approvals.get(request.name)
        await self._rights.to(call.caller, Action.APPROVE, f"keys/{row.key}")
        return self._told(await self._approvals.decide(request.name, call.caller, grant=True))

    async def DenyApproval(self, request: approvals_pb2.DenyApprovalRequest, call: Call) -> approvals_pb2.Approval:
        """No."""
        row = await self._approvals.get(request.name)
        if row.requester != call.caller.name:
            await self._rights.to(call.caller, Action.APPROVE, f"keys/{row.key}")
        return self._told(await self._approvals.decide(request.name, call.caller, grant=False))

    async def _concerns(self, caller: Caller, row: ApprovalRow) -> bool:
        return row.requester == caller.name or await self._rights.has(caller, Action.APPROVE, f"keys/{row.key}")

    def _told(self, row: ApprovalRow) -> approvals_pb2.Approval:
        return wire.approval(row, self._approvals.state(row))

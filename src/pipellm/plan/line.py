"""The line of IVs: sends requests in its order, and gives up what cannot be sent."""

from __future__ import annotations

from pipellm.plan.actions import Action, Commit, Nop, Relinquish, SealNow, Speculate, Why
from pipellm.plan.ledger import Ledger
from pipellm.plan.patience import Patience
from pipellm.plan.pipeline import Pipeline, Speculation, overlap
from pipellm.plan.rules import Costs
from pipellm.plan.tally import Tally
from pipellm.transfers import Direction, Transfer, messages

_MISPREDICTED = frozenset({Why.BEHIND, Why.SKIPPED, Why.GAP, Why.UNFORESEEN, Why.FULL})


class Line:
    """The next IV, the speculations beyond it, and the actions that changes to them call for."""

    def __init__(self, costs: Costs) -> None:
        self.costs = costs
        self.tally = Tally()
        self.ledger = Ledger()
        self.pipeline = Pipeline()
        self.patience = Patience()
        self.changed = False
        """Speculations were given up: the forecast is to be laid out again."""
        self.mispredicted = False
        """Some of them had ciphertexts, and a wrong forecast is to blame."""
        self._actions: list[Action] = []

    def do(self, action: Action) -> None:
        """One more action for the shell."""
        self._actions.append(action)

    def take(self) -> list[Action]:
        """The actions since the last call, in order."""
        actions, self._actions = self._actions, []
        return actions

    def keep_order(self, transfer: Transfer) -> None:
        """Let a new request not overtake one that waits and touches the same bytes."""
        device = (transfer.device_address, transfer.nbytes)
        host = (transfer.address, transfer.nbytes)
        swap_out = transfer.direction is Direction.D2H
        for waiting in self.pipeline.requested():
            request = waiting.request
            if request and (
                overlap((request.device_address, request.nbytes), device)
                or (swap_out and overlap(waiting.key, host))
            ):
                self.flush()
                return

    def seal_now(self, transfer: Transfer) -> None:
        """Send a request that has no place, at the next IV."""
        needed = messages(transfer.nbytes)
        if self.pipeline.taken and any(
            behind.request for behind in self.pipeline.before(self.ledger.next + needed)
        ):
            self.flush()  # rather than lose the places of those that wait
        for behind in self.pipeline.before(self.ledger.next + needed):
            self.drop(behind, Why.BEHIND)
        self._send(transfer, None)

    def send_due(self) -> None:
        """Send the requests whose turn it is."""
        head = self.pipeline.head
        if head and head.waiting and head.iv == self.ledger.next:
            self.patience.paid()
        while (head := self.pipeline.head) and head.request and head.iv == self.ledger.next:
            self.pipeline.remove(head)
            if head.asked:
                self.tally.hits += 1
                self.tally.by_pattern[head.pattern] += 1
                self._send(head.request, head)
            else:
                self.tally.misses += 1
                self._send(head.request, None)

    def flush(self, stream: int | None = None) -> None:
        """Send what waits on this stream (None: on any), and whatever waits before it."""
        while waiting := self.pipeline.requested():
            if not any(stream in (None, one.request.stream) for one in waiting if one.request):
                return
            self._reach(waiting[0])

    def flush_to(self, target: Speculation) -> None:
        """Send one request that waits, and whatever waits before it."""
        while target.request and self.pipeline.get(target.id):
            self._reach(self.pipeline.requested()[0])

    def ask(self, speculation: Speculation, last: int) -> None:
        """Have the chunks of a speculation up to `last` sealed."""
        first, speculation.asked = speculation.asked, last
        self.pipeline.asked += last - first
        self.tally.sealed_ahead_chunks += last - first
        address, nbytes = speculation.key
        self.do(Speculate(speculation.id, address, nbytes, first, last, speculation.iv))

    def drop(self, speculation: Speculation, why: Why) -> None:
        """Give up a place and the ciphertexts in it; one that was promised keeps the place."""
        self.wipe(speculation, why)
        if not speculation.promised:
            self.pipeline.remove(speculation)

    def drop_all(self, why: Why) -> None:
        """Give up every place."""
        for speculation in list(self.pipeline):
            self.drop(speculation, why)

    def wipe(self, speculation: Speculation, why: Why) -> None:
        """Give up the ciphertexts but not the place, nor the request that waits there."""
        self.changed = True
        if not speculation.asked:
            return
        self.do(Relinquish(speculation.id, why))
        self.mispredicted |= why in _MISPREDICTED
        self.tally.relinquishes += 1
        self.tally.stale += why is Why.STALE
        self.tally.wasted_chunks += speculation.asked
        self.pipeline.asked -= speculation.asked
        speculation.asked = speculation.sealed = 0

    def _reach(self, first: Speculation) -> None:
        """Close the gap before the first request that waits and send it; or start over."""
        if first.waiting:
            self.patience.in_vain()
            first.waiting = False
        gap = first.iv - self.ledger.next
        at_stake = sum(later.asked for later in self.pipeline.since(first.iv))
        if gap * self.costs.nop_ns > at_stake * self.costs.seal_ns:
            self._start_over()
            return
        for skipped in self.pipeline.before(first.iv):
            self.drop(skipped, Why.SKIPPED)
        if gap:
            self.do(Nop(self.ledger.next, gap))
            self.ledger.send(self.ledger.next, gap)
            self.tally.nops += gap
        self.send_due()

    def _start_over(self) -> None:
        """Give up every place; what was requested is sealed now."""
        requests = [waiting.request for waiting in self.pipeline.requested()]
        self.drop_all(Why.GAP)
        for request in requests:
            if request:
                self.tally.misses += 1
                self._send(request, None)

    def _send(self, transfer: Transfer, speculation: Speculation | None) -> None:
        needed = messages(transfer.nbytes)
        iv = self.ledger.next
        self.ledger.send(iv, needed)
        if speculation:
            self.do(Commit(speculation.id, transfer, iv, needed))
        else:
            self.do(SealNow(transfer, iv, needed))

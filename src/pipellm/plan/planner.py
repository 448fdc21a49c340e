"""The planner of one device: events in, actions out. It decides everything and does nothing.

Theory of operation
===================

The device counts the messages it receives and opens each under the next IV, so the host may seal
anything in any order ahead of time, but must send by consecutive IVs. The planner keeps one line of
IVs: on its left what was sent, then `next`, and to the right *speculations*: predicted swap-ins
with IVs of their own, disjoint and ascending, with gaps for what is expected in between:

      sent | next                                                     IV -->
    -------+-----+============+--+===========+-----+=================+--------
           | gap |  swap-in A |  | swap-in B | gap | swap-in C       |
           ^ small transfers are sealed here when asked for

Everything follows from a few rules.

1.  A request nobody foresaw is sealed now, at `next`. Speculations whose IVs it uses up are
    *behind*, beyond recovery, and relinquished at once; the others stand.
2.  A request that was foreseen takes its speculation, if the shell has shown its plaintext to be
    unchanged. If not, the ciphertext is wiped and the request keeps the place and its IVs, under
    which nothing was sent: what comes after it stands.
3.  If the speculation is at `next`, it is committed. If it is *ahead*, the gap before it must be
    closed. What is expected in the gap may still come, so the request waits (is deferred) until
    its turn comes, or something depends on it (`sync`, `order`), or `patience_ns` have passed. A
    gap with nothing in it but margin is not waited for, a blocking request does not wait, nor does
    any where waiting was in vain of late (`patience`).
4.  A gap is closed by NOPs, unless they are dearer than to seal everything behind it anew; then
    everything is relinquished, and what was requested is sealed now.
5.  After an event that proved the forecast wrong, or left the line short, the forecast is laid out
    along the line again. A speculation that it still contains keeps its IVs. One that it leaves
    out is relinquished, and so is the rest of the line where the forecast needs IVs that are
    taken. The gaps are those learned, plus a margin (`leeway`). What is laid out is sealed in the
    order of the line as far as the window reaches, possibly only the first chunks of the last one.
6.  Nothing is sealed ahead from memory that a swap-out is about to write (until it has landed), or
    that disappointed before (`trust`).

The line holds about `HORIZON` speculations and `CROWD` requests that wait, so an event costs the
same however many buffers a program has.

Requests that wait may be overtaken by later requests, never by ones that touch the same bytes. When
a program may *see* that copies are done is the shell's to report: `sync` where the program waits,
`order` for whatever else depends on them (a kernel launch, an event, a query of the stream).

What the planner would answer is often clear before the question: a request that takes the place at
`next` is committed, and while no request waits, a small transfer or a swap-out goes at once. So a
shell may be given the head of the line (`promise`), send what fits (`following` says what does) and
tell of it afterwards, in order (`followed`). What was promised keeps its place meanwhile. With
whatever does not fit the shell asks, once it has told of all that did; then nothing is promised.

The shell calls the methods in the order in which things happen, one at a time, and does the actions
in the order given. What it asks of memory (is this plaintext unchanged?) happens outside:
`candidate` names the speculation to validate, `request` says which one was found unchanged. If it
is no longer the one in question, the request is simply treated as not validated.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pipellm.plan.actions import Action, Commit, Defer, Open, Relinquish, SealNow, Speculate, Why
from pipellm.plan.following import Step
from pipellm.plan.layout import Layout
from pipellm.plan.ledger import IVError, Ledger
from pipellm.plan.line import Line
from pipellm.plan.pipeline import Speculation
from pipellm.plan.rules import Costs, Rules
from pipellm.plan.tally import Tally
from pipellm.predict import Predictor
from pipellm.predict.ranges import Range
from pipellm.transfers import Direction, Transfer, messages

CROWD = 32
"""So many requests wait at most."""


class Planner:
    """Plans the copies of one device under one policy."""

    def __init__(self, rules: Rules, costs: Costs) -> None:
        self.received = Ledger()
        """The IVs of the other direction, which the device chooses."""
        self._rules = rules
        self._ahead = rules.ahead and rules.budget_chunks > 0
        self._line = Line(costs)
        self._predictor = Predictor()
        self._layout = Layout(self._line, self._predictor, rules.budget_chunks)
        self._storing = False  # in a batch of swap-outs

    # What a shell may look at ------------------------------------------------------------------

    @property
    def ledger(self) -> Ledger:
        """The IVs from host to device."""
        return self._line.ledger

    @property
    def tally(self) -> Tally:
        """What became of the requests so far."""
        return self._line.tally

    @property
    def costs(self) -> Costs:
        """What things cost; to be replaced as the shell learns better."""
        return self._line.costs

    @costs.setter
    def costs(self, costs: Costs) -> None:
        self._line.costs = costs

    @property
    def waiting(self) -> int:
        """How many requests wait for their turn. While none does, `order` has nothing to do."""
        return self._line.pipeline.taken

    @property
    def deadline(self) -> int | None:
        """When the longest wait of a request ends, in ns; None if none waits."""
        since = [waiting.since for waiting in self._line.pipeline.requested()]
        return min(since) + self._rules.patience_ns if since else None

    def candidate(self, transfer: Transfer) -> int | None:
        """The speculation whose plaintext to validate before `request`, if there is one."""
        if transfer.direction is Direction.D2H:
            return None
        found = self._line.pipeline.find((transfer.address, transfer.nbytes))
        return found.id if found and found.asked else None

    # Events ------------------------------------------------------------------------------------

    def request(self, now: int, transfer: Transfer, validated: int | None = None) -> list[Action]:
        """The program asks for a copy, at `now` ns.

        `validated` is the candidate, if its plaintext is unchanged since it was given to Speculate.
        Raises ValueError for an empty transfer, IVError if the key has no IVs left.
        """
        if transfer.nbytes < 1:
            raise ValueError("an empty copy is no transfer")
        self.recall()
        if self.waiting:
            self._line.keep_order(transfer)
        expected = self._go(now, transfer, validated)
        if transfer.blocking:
            self._line.flush(transfer.stream)
        elif self.waiting > CROWD:
            self._line.flush()
        return self._settle(surprised=not expected, always=True)

    def promise(self) -> list[Step] | None:
        """The places that requests may take without asking, but for those promised before.

        They are sealed, or being sealed, whole; and they are consecutive in the line from its head.
        None: the shell has to ask, as a request waits, or nothing is left in a promised place,
        which cannot be sealed again before the promise is taken back.
        """
        if self.waiting:
            return None
        steps = []
        for place in self._line.pipeline:
            if place.promised and not place.asked:
                return None
            if not place.promised:
                if place.asked < place.count:
                    break
                place.promised = True
                steps.append(Step(place.id, place.key, place.iv))
        return steps

    def recall(self) -> None:
        """Nothing is promised any more; the shell has told of all that it sent without asking."""
        for place in list(self._line.pipeline):
            if place.promised and not place.asked:  # kept only because it was promised
                self._line.pipeline.remove(place)
            place.promised = False

    def followed(
        self, transfer: Transfer, iv: int, *, clean: bool = True, late: bool = False
    ) -> list[Action]:
        """`transfer` was sent (received) from IV `iv` on, without asking; returns what to do now.

        Where it took a promised place, `clean` says whether what was sealed of it was unchanged,
        and `late` whether some of it was not sealed yet. Raises IVError if it was not to go so.
        """
        validated = self.candidate(transfer) if clean else None
        if validated is not None and (found := self._line.pipeline.get(validated)):
            found.sealed = 0 if late else found.asked
        expected = self._go(0, transfer, validated)
        sent: list[Action] = []
        rest: list[Action] = []
        for action in self._settle(surprised=not expected, always=True):
            (rest if isinstance(action, Speculate | Relinquish) else sent).append(action)
        match sent:
            case [Commit(transfer=told, iv=number) | SealNow(told, number) | Open(told, number)]:
                if told is transfer and number == iv:
                    return rest
        raise IVError(f"a copy was sent under IV {iv}, which was not promised to it")

    def order(self, stream: int | None = None) -> list[Action]:
        """From here on something depends on the copies asked for on `stream` (None: on any)."""
        self._line.flush(stream)
        return self._settle()

    def sync(self, stream: int | None = None) -> list[Action]:
        """The program waits likewise, other than in a blocking copy: a batch of copies ends."""
        self._storing = False
        self._predictor.sync()
        return self.order(stream)

    def clock(self, now: int) -> list[Action]:
        """It is `now` ns; to be called at `deadline` at the latest."""
        deadline = self.deadline
        if deadline is not None and now >= deadline:
            self._line.flush()
        return self._settle()

    def expect(self, groups: Iterable[Sequence[Range]]) -> list[Action]:
        """The program says what it will swap in next, in this order, group by group.

        A hint, in the place of the last one: nothing but what is sealed ahead depends on it.
        """
        self.recall()
        if self._ahead:
            self._storing = False  # whatever was to be swapped out before that has been
            self._predictor.expect(groups)
            self._line.changed = True
        return self._settle()

    def sealed(self, speculation: int, chunks: int) -> None:
        """The first `chunks` chunks of a speculation are sealed."""
        found = self._line.pipeline.get(speculation)
        if found:
            found.sealed = min(chunks, found.asked)

    def refused(self, speculation: int, why: Why) -> list[Action]:
        """The shell cannot seal what it was asked to: FAILED, FULL or UNFIT."""
        found = self._line.pipeline.get(speculation)
        if found and found.asked:
            if found.request is None:
                self._line.drop(found, why)
            else:
                self._line.wipe(found, why)
            if why is Why.UNFIT:
                self._layout.trust.unfit(found.key)
                self._spoil(*found.key, why)
            else:
                self._layout.window.close()
        return self._settle()

    def written(self, address: int, nbytes: int) -> list[Action]:
        """Host memory was seen to have changed."""
        self._spoil(address, nbytes, Why.STALE)
        return self._settle()

    def landed(self, transfer: Transfer) -> list[Action]:
        """The bytes of a swap-out are in host memory, all and verified."""
        if self._ahead:
            self._layout.landing.landed(transfer)
            self._line.changed = True
        return self._settle()

    def freed(self, address: int, nbytes: int) -> list[Action]:
        """Host memory is about to be freed, unmapped or given to something else.

        It may go once the actions are done and no worker reads it any more.
        """
        self._spoil(address, nbytes, Why.FREED)
        self._layout.trust.freed(address, nbytes)
        self._predictor.forget(address, nbytes)
        return self._settle()

    def rotate(self) -> list[Action]:
        """The keys are about to change; what was requested goes out under the old ones."""
        self.recall()
        self._line.flush()
        self._line.drop_all(Why.ROTATED)
        self.ledger.restart()
        self.received.restart()
        return self._line.take()

    def close(self) -> list[Action]:
        """The end: what was requested goes out, and nothing is sealed ahead any more."""
        self._ahead = False
        self.recall()
        self._line.flush()
        self._line.drop_all(Why.CLOSED)
        return self._line.take()

    # Requests ----------------------------------------------------------------------------------

    def _go(self, now: int, transfer: Transfer, validated: int | None) -> bool:
        """Send or receive what is requested, or let it wait; returns whether it was expected."""
        self._storing = transfer.direction is Direction.D2H
        if self._storing:
            self._receive(transfer)
        elif self._ahead:
            return self._send(now, transfer, validated)
        else:
            self._line.seal_now(transfer)
        return True

    def _receive(self, transfer: Transfer) -> None:
        needed = messages(transfer.nbytes)
        iv = self.received.next
        self.received.send(iv, needed)
        if self._ahead:
            self._layout.landing.expect(transfer)
            self._spoil(transfer.address, transfer.nbytes, Why.STALE)
            self._predictor.observe(transfer)
            self._line.changed = True
        self._line.do(Open(transfer, iv, needed))

    def _send(self, now: int, transfer: Transfer, validated: int | None) -> bool:
        """Send a request or let it wait; returns whether it was expected."""
        seen = self._predictor.observe(transfer)
        if seen.foreseen:
            self._layout.leeway.learn(seen.foreseen, seen.surplus)
        if not seen.swap:
            self._line.seal_now(transfer)
            return True
        self._layout.window.request()
        found = self._line.pipeline.find((transfer.address, transfer.nbytes))
        if found is None:
            self.tally.misses += 1
            self._layout.trust.missed((transfer.address, transfer.nbytes))
            self._line.seal_now(transfer)
        else:
            self._take_up(found, transfer, clean=found.id == validated)
            self._place(now, found, transfer)
        return seen.expected

    def _take_up(self, found: Speculation, transfer: Transfer, *, clean: bool) -> None:
        """A request has come for a speculation; one that is not `clean` keeps only its place."""
        trust, window = self._layout.trust, self._layout.window
        if found.asked and clean:
            trust.clean(found.key)
            window.hit()
            if found.sealed < found.count:
                self.tally.late += 1
                window.grow()
        elif found.asked:
            trust.stale(found.key)
            self._line.wipe(found, Why.STALE)
        else:
            trust.missed(found.key)
        found.request = transfer
        self._line.pipeline.taken += 1

    def _place(self, now: int, found: Speculation, transfer: Transfer) -> None:
        """Send a request that has a place, or let it wait for its turn."""
        gap = found.iv - self.ledger.next
        only_margin = found is self._line.pipeline.head and gap <= found.margin
        if gap == 0:
            self._line.send_due()
        elif transfer.blocking or only_margin or not self._line.patience.waits():
            self._line.flush_to(found)
        else:
            found.waiting, found.since = True, now
            self.tally.reorders += 1
            self._line.do(Defer(transfer))

    def _spoil(self, address: int, nbytes: int, why: Why) -> None:
        """Drop what was sealed from this memory and not requested yet."""
        for spoilt in self._line.pipeline.overlapping(address, nbytes):
            if why is Why.STALE:
                self._layout.trust.written(spoilt.key)
            self._line.drop(spoilt, why)

    def _settle(self, *, surprised: bool = False, always: bool = False) -> list[Action]:
        """Bring the line up to date and hand out the actions.

        Not in the middle of a batch of swap-outs: each of them may change what returns next.
        """
        if self._ahead and not self._storing and (always or self._line.changed):
            self._layout.refresh(surprised=surprised)
        return self._line.take()

"""The ledgers of all models in a store: read, and appended to. The rules are :mod:`modelkeep.ledger`'s."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from modelkeep.entry import FORMAT, AnyAction, Entry, damaged, decode, encode, entry_key, moment
from modelkeep.errors import Conflict, LedgerDamaged, ModelNotFound, NotFound, ObjectExists
from modelkeep.ledger import State, check, fold
from modelkeep.refs import is_model_name
from modelkeep.snapshots import EVERY, Snapshots
from modelkeep.storage.protocol import ObjectStore

ATTEMPTS = 200  # lost races for an entry's number before giving up
LONGEST_PAUSE = 0.25  # seconds between two attempts
_OWN_FOLDERS = frozenset({"ledger", "snapshots"})
_ENTRY_FILE = re.compile(r"[0-9]{12}\.json")


class Ledgers:
    """Every model's ledger. Safe to use from many threads; keeps what it read, and reads on from there."""

    def __init__(
        self,
        store: ObjectStore,
        *,
        actor: str | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._actor = actor
        self._clock = clock
        self._states: dict[str, State] = {}

    def models(self) -> Iterator[str]:
        """The name of every model, sorted within each folder. A folder that can be no model's is a stranger's."""
        yield from self._below("")

    def _below(self, prefix: str) -> Iterator[str]:
        parts = set(self._store.folders(f"models/{prefix}"))
        # Snapshots without a ledger are what is left of a model, and reading it says so.
        if prefix and parts & _OWN_FOLDERS:
            yield prefix[:-1]
        for part in sorted(parts):
            if is_model_name(f"{prefix}{part}"):
                yield from self._below(f"{prefix}{part}/")

    def state(self, model: str) -> State:
        """What all entries of a model leave, up to its newest. Raises ModelNotFound, LedgerDamaged, FormatTooNew."""
        state = self.state_or_new(model)
        if not state.seq:
            raise ModelNotFound(f"no model {model!r} in {self._store.url}", hint="see: modelkeep list")
        return state

    def state_or_new(self, model: str) -> State:
        """Like :meth:`state`; for a model that is not there, the state in which its first entry is written."""
        state = self._from_memory(model) or self._from_snapshots(model) or self.replay(model)
        if state.seq:
            self._states[model] = state
        return state

    def _from_memory(self, model: str) -> State | None:
        if model not in self._states:
            return None
        try:
            return self._continued(self._states[model])
        except LedgerDamaged:
            return None  # damaged, or a store that was deleted and made anew: read it from the beginning

    def _from_snapshots(self, model: str) -> State | None:
        for state in self.snapshots(model).states():
            following = self._continued(state)
            if following is not None:
                return following
        return None

    def _continued(self, state: State) -> State | None:
        """A folded state and all that came since; None where it is not of this ledger.

        Raises LedgerDamaged where the ledger lacks the entry that the state was folded up to: it was cut.
        """
        # The chain says whose state it is; only where nothing continues it is its own entry read again.
        try:
            following = self._forward(state)
        except LedgerDamaged:
            if self._is_head(state):
                raise
            return None
        return following if following is not state or self._is_head(state) else None

    def _is_head(self, state: State) -> bool:
        try:
            data = self._store.get(entry_key(state.model, state.seq))
        except NotFound as error:
            damaged(state.model, state.seq, "is missing, though a snapshot was made of it", cause=error)
        return decode(data, state.model, state.seq)[1] == state.head

    def _forward(self, state: State, *, last: int | None = None, until: str | None = None) -> State:
        while state.seq != last:
            try:
                data = self._store.get(entry_key(state.model, state.seq + 1))
            except NotFound:
                break
            following = fold(state, data)
            if until is not None and following.time > until:
                break
            state = following
        return state

    def replay(self, model: str) -> State:
        """The state by the entries alone, whatever the snapshots say; seq 0 for a model that is not there.

        Raises LedgerDamaged also where an entry is missing before one that is there, or before a snapshot.
        """
        listed = self.listed(model)
        state = self._forward(State(model=model))
        if listed and listed[-1] > state.seq:
            damaged(model, state.seq + 1, "is missing, though later ones are there")
        if not state.seq and self.snapshots(model).exist():
            damaged(model, 1, "is missing, though there are snapshots")
        return state

    def _replay(self, model: str, last: int) -> State:
        state = self._forward(State(model=model), last=last)
        if state.seq != last:
            damaged(model, state.seq + 1, "is missing, though a snapshot was made later")
        return state

    def listed(self, model: str) -> list[int]:
        """The numbers of all entries there are, in order, whether they can be read or not."""
        names = (info.key.rpartition("/")[2] for info in self._store.list(f"models/{model}/ledger/"))
        return sorted(int(name[:12]) for name in names if _ENTRY_FILE.fullmatch(name))

    def state_at(self, model: str, at: str) -> State:
        """The state at a moment (see :func:`modelkeep.entry.moment`), by reading the ledger up to there.

        Raises ModelNotFound where the model had no entry yet, LedgerDamaged where one is missing on the way.
        """
        state = self.state(model)
        if state.time > at:
            state = self._forward(State(model=model), until=at)
            self.entry(model, state.seq + 1)  # there is one: it was too late, and not missing
        if not state.seq:
            raise ModelNotFound(f"{model} had no entry at {at}", hint=f"see: modelkeep history {model}")
        return state

    def data(self, model: str, seq: int) -> bytes:
        """The bytes of one entry's file. Raises LedgerDamaged where it is missing."""
        try:
            return self._store.get(entry_key(model, seq))
        except NotFound as error:
            damaged(model, seq, "is missing", cause=error)

    def entry(self, model: str, seq: int) -> Entry:
        """One entry. Raises LedgerDamaged where it is missing or does not fit."""
        return decode(self.data(model, seq), model, seq)[0]

    def snapshots(self, model: str) -> Snapshots:
        """A model's snapshots."""
        return Snapshots(self._store, model, self._replay)

    def entries(self, model: str) -> Iterator[Entry]:
        """Every entry, oldest first, each checked against all before it. Raises like :meth:`state`."""
        last = self.state(model).seq
        state = State(model=model)
        while state.seq < last:
            data = self.data(model, state.seq + 1)
            state = fold(state, data)
            yield decode(data, model, state.seq)[0]

    def append(self, model: str, decide: Callable[[State], AnyAction], *, reason: str | None = None) -> Entry:
        """Write the next entry: what ``decide`` makes of the state it follows.

        Whoever finds the number taken reads on and decides again, so ``decide`` may be called many times;
        it raises to do nothing at all. Raises what :func:`modelkeep.ledger.check` raises, and Conflict
        when others were first every time.
        """
        for attempt in range(ATTEMPTS):
            state = self.state_or_new(model)
            action = decide(state)
            check(state, action)
            entry = self._entry_after(state, action, reason)
            data = encode(entry)
            following = fold(state, data)
            try:
                self._store.create(entry_key(model, entry.seq), [data])
            except ObjectExists:
                time.sleep(random.uniform(0, min(LONGEST_PAUSE, 0.001 * 2**attempt)))
                continue
            if entry.seq % EVERY == 0:
                following = self.snapshots(model).write(following)
            self._states[model] = following
            return entry
        raise Conflict(f"other writers to {model!r} were first {ATTEMPTS} times in a row", hint="try again")

    def _entry_after(self, state: State, action: AnyAction, reason: str | None) -> Entry:
        return Entry(
            format=FORMAT,
            model=state.model,
            seq=state.seq + 1,
            previous=state.head,
            time=max(self.now(), state.time),
            actor=self.actor,
            action=action,
            reason=reason or None,
        )

    def now(self) -> str:
        """This machine's clock, as the ledger writes time."""
        return moment(self._clock())

    @property
    def actor(self) -> str:
        """Who is named in entries: what was given, else ``user@host``."""
        if self._actor is None:
            self._actor = _whoever_runs_this()
        return self._actor


def _whoever_runs_this() -> str:
    import getpass  # only writers need these, and reading must start fast
    import socket

    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):  # no such user, no terminal, no pwd module
        user = "unknown"
    return f"{user}@{socket.gethostname()}"

"""The worker's clocks, its stop request, and a warning about clocks that disagree."""

from __future__ import annotations

import time

#: Seconds by which clocks may differ. KK's clock is known to the second, by its last response.
CLOCKS_AGREE_S = 30.0
_MACHINE, _DATABASE, _KK = "this machine", "the ledger's database", "KK"


def describe_clocks(database_s: float | None, kk_s: float | None) -> str:
    """Describe the wrong clock, its error, the effect and the fix; empty if the clocks agree.

    :param database_s: the database's clock minus this machine's, in seconds; None if they are one clock.
    :param kk_s: KK's clock minus this machine's, in seconds; None if it is not known.
    """
    known = {_MACHINE: 0.0, _DATABASE: database_s, _KK: kk_s}
    ahead_s = {name: seconds for name, seconds in known.items() if seconds is not None}
    if len(ahead_s) == 1:
        return ""
    first, *middle, last = sorted(ahead_s, key=lambda name: ahead_s[name])
    apart_s = ahead_s[last] - ahead_s[first]
    if apart_s <= CLOCKS_AGREE_S:
        return ""
    if not middle:
        what = f"The clock of {last} is {apart_s:.0f} s ahead of the clock of {first}"
        to_do = "Check the time of this machine first. It should be set by NTP"
    elif ahead_s[middle[0]] - ahead_s[first] <= CLOCKS_AGREE_S:
        what, to_do = f"The clock of {last} is {apart_s:.0f} s ahead of the two others", _ADVICE[last]
    elif ahead_s[last] - ahead_s[middle[0]] <= CLOCKS_AGREE_S:
        what, to_do = f"The clock of {first} is {apart_s:.0f} s behind the two others", _ADVICE[first]
    else:
        others = ", ".join(f"{name} {ahead_s[name]:+.0f} s" for name in (_DATABASE, _KK))
        what, to_do = f"No two clocks agree: compared to {_MACHINE}, {others}", "Set them by NTP"
    return f"{what}. Orders in doubt wait up to {apart_s:.0f} s longer because of it. {to_do}"


_ADVICE = {
    _MACHINE: "Set the time of this machine, by NTP for example",
    _DATABASE: "Set the time of the database's server, by NTP for example",
    _KK: "If the database is on this machine, check this machine's time first. Otherwise report it to KK",
}


class Stop:
    """A request to send nothing new, which a signal handler can set safely.

    `threading.Event` is not safe there: its `set()` takes a lock that the interrupted thread may hold.
    """

    def __init__(self) -> None:
        self.reason: str | None = None

    def set(self, reason: str = "stopped") -> None:
        """Request the stop. The first reason is kept."""
        self.reason = self.reason or reason

    def is_set(self) -> bool:
        """Return whether the stop was requested."""
        return self.reason is not None

    def wait(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for the request; return whether it came."""
        until = time.monotonic() + timeout
        while not self.is_set() and (rest := until - time.monotonic()) > 0:
            time.sleep(min(rest, 0.1))
        return self.is_set()


class Clock:
    """The worker's clocks, in seconds."""

    def wall(self) -> float:
        """Return epoch seconds, which may jump."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds that never go backwards, and that stop while the machine is suspended."""
        return time.monotonic()

    def sleep(self, seconds: float, stop: Stop) -> None:
        """Sleep, at most until `stop` is set."""
        stop.wait(seconds)

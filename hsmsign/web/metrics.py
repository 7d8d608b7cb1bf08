"""What is counted, and how it is now, as OpenMetrics, with names as its conventions have them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from cryptography import x509
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
    StateSetMetricFamily,
)
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from hsmsign.audit.auditing import Audit
from hsmsign.audit.notes import unsigned
from hsmsign.audit.records import OK, CallMade, SignaturesMade
from hsmsign.devices.base import Device
from hsmsign.model.device import DeviceState
from hsmsign.model.errors import AuditError

CONTENT_TYPE = CONTENT_TYPE_LATEST
KEYS_MAX = 1000
"""Keys that have series of their own; further ones share `other`, so that nobody can make series without end."""
_OTHER = "other"
_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class _Labelled:
    """What a registry has, with one more label."""

    def __init__(self, registry: CollectorRegistry, label: Mapping[str, str]) -> None:
        self._registry = registry
        self._label = label

    def collect(self) -> Iterator[Metric]:
        for family in self._registry.collect():
            family.samples = [one._replace(labels={**one.labels, **self._label}) for one in family.samples]
            yield family


class Metrics:
    """The counters of one worker."""

    def __init__(self, worker: str = "") -> None:
        """`worker`: its name, a label of all its series; "": there is no other, and no label."""
        self.registry = CollectorRegistry()
        self._told = _Labelled(self.registry, {"worker": worker}) if worker else self.registry
        self._calls = Counter(
            "hsmsign_calls", "Calls, but for those that sign.", ["method", "outcome"], registry=self.registry
        )
        self._signatures = Counter(
            "hsmsign_signatures",
            "Signatures that were asked for, by what became of them: OK, or the reason.",
            ["key", "scheme", "outcome"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "hsmsign_sign_seconds",
            "How long a request's group took, in the queue and on the device, without its recording.",
            ["key", "outcome"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._known: set[str] = set()
        self._groups: dict[tuple[str, str, str], tuple[Counter, Histogram]] = {}

    def add(self, collector: Collector) -> None:
        """Have something asked whenever the metrics are."""
        self.registry.register(collector)

    def called(self, made: CallMade) -> None:
        """Count a call."""
        self._calls.labels(made.method, made.outcome).inc()

    def signed(self, made: SignaturesMade) -> None:
        """Count the signatures of a group."""
        failed = len(made.failures)
        counter, histogram = self._of(made, made.outcome)
        counter.inc(len(made.inputs) - failed)
        histogram.observe(made.seconds)
        if failed:
            for reason in made.failures.values():
                self._of(made, reason)[0].inc()

    def text(self) -> bytes:
        """The metrics as they are now."""
        return bytes(generate_latest(self._told))  # type: ignore[no-untyped-call]

    def _of(self, made: SignaturesMade, outcome: str) -> tuple[Counter, Histogram]:
        scheme = "" if made.scheme is None else made.scheme.name
        # of a group that was refused only what was asked for is known, which is any caller's text
        asked = (made.name if made.outcome == OK else _OTHER, scheme, outcome)
        found = self._groups.get(asked)
        if found is None:
            key = self._key(asked[0])
            found = self._signatures.labels(key, scheme, outcome), self._seconds.labels(key, outcome)
            if key != _OTHER or asked[0] == _OTHER:
                self._groups[asked] = found
        return found

    def _key(self, name: str) -> str:
        """keys/ID of a version."""
        key = name.partition("/versions/")[0]
        if key not in self._known and len(self._known) >= KEYS_MAX:
            return _OTHER
        self._known.add(key)
        return key


class Metered:
    """An audit log whose records are counted, too."""

    def __init__(self, audit: Audit, metrics: Metrics) -> None:
        self._audit = audit
        self._metrics = metrics

    def ready(self) -> None:
        """As the log says."""
        self._audit.ready()

    async def call(self, made: CallMade) -> None:
        """Count and record."""
        self._metrics.called(made)
        await self._audit.call(made)

    async def signatures(self, made: SignaturesMade) -> None:
        """Count and record."""
        self._metrics.signed(made)
        await self._audit.signatures(made)


class Devices(Collector):
    """How the devices are."""

    def __init__(
        self, devices: Mapping[str, Device], broken_off: Callable[[str], bool], moved: Mapping[str, int]
    ) -> None:
        """`broken_off` tells by a device's name whether it fails so often that callers are refused, `moved` how many
        signatures it did not make and another was asked for."""
        self._devices = devices
        self._broken_off = broken_off
        self._moved = moved

    def collect(self) -> Iterator[Metric]:
        """State, sessions, queue."""
        state = StateSetMetricFamily("hsmsign_device_state", "The state of a backend's device.", labels=["backend"])
        sessions = GaugeMetricFamily("hsmsign_device_sessions", "Sessions that sign.", labels=["backend"])
        queue = GaugeMetricFamily(
            "hsmsign_device_in_flight", "Signatures that wait for a device, or are under way.", labels=["backend"]
        )
        broken = GaugeMetricFamily(
            "hsmsign_device_broken_off", "Whether it fails so often that callers are refused.", labels=["backend"]
        )
        moved = CounterMetricFamily(
            "hsmsign_signatures_moved",
            "Signatures that a backend did not make and a replica was asked for.",
            labels=["backend"],
        )
        for name, device in self._devices.items():
            moved.add_metric([name], self._moved.get(name, 0))
            broken.add_metric([name], self._broken_off(name))
            now = device.health().state
            state.add_metric([name], {one.value: one is now for one in DeviceState})
            info = device.info()
            sessions.add_metric([name], info.sessions if info is not None else 0)
            queue.add_metric([name], device.in_flight())
        yield from (state, sessions, queue, broken, moved)


class Process(Collector):
    """The worker itself, and the audit log."""

    def __init__(
        self, version: str, active: Callable[[], int], waiting: Callable[[], int], note: Callable[[], bytes | None]
    ) -> None:
        """`waiting`: calls that wait for the audit log; `note`: its newest checkpoint."""
        self._version = version
        self._active = active
        self._waiting = waiting
        self._note = note

    def collect(self) -> Iterator[Metric]:
        """Gauges."""
        yield InfoMetricFamily("hsmsign_daemon", "What runs.", {"version": self._version})
        yield GaugeMetricFamily("hsmsign_calls_active", "Calls that are under way.", self._active())
        yield GaugeMetricFamily("hsmsign_audit_waiting", "Calls that wait for their records.", self._waiting())
        note = self._note()
        if note is not None:
            try:
                size = unsigned(note).size
            except AuditError:
                return
            yield GaugeMetricFamily("hsmsign_audit_checkpoint_records", "Records below the newest checkpoint.", size)


class Crls(Collector):
    """When the CRLs of the daemon's authorities end."""

    def __init__(self, read: Callable[[], Mapping[str, int]]) -> None:
        """`read` gives seconds since 1970 by the versions of authorities."""
        self._read = read

    def collect(self) -> Iterator[Metric]:
        """Gauges."""
        ends = GaugeMetricFamily(
            "hsmsign_crl_next_update_timestamp_seconds", "When the first of its CRLs ends.", labels=["authority"]
        )
        for name, moment in self._read().items():
            ends.add_metric([name], moment)
        yield ends


class Certificates(Collector):
    """When the daemon's certificates end."""

    def __init__(self, read: Callable[[], Iterable[tuple[str, x509.Certificate]]]) -> None:
        """`read` gives what each certificate is for, and itself."""
        self._read = read

    def collect(self) -> Iterator[Metric]:
        """Seconds since 1970, as Prometheus wants times."""
        ends = GaugeMetricFamily(
            "hsmsign_certificate_not_after_timestamp_seconds", "When a certificate ends.", labels=["certificate"]
        )
        for name, certificate in self._read():
            ends.add_metric([name], certificate.not_valid_after_utc.timestamp())
        yield ends

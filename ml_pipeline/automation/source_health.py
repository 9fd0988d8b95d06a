"""Which sources do not answer, why, when each is tried again, and which runs have stalled: what the discovery sensor
keeps in its cursor."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from pydantic import BaseModel, ConfigDict, ValidationError

from ml_pipeline.checkpoints.run_pace import StalledRun

_LONGEST_WAIT_S = 900.0
_LONGEST_REASON = 500


class Failing(BaseModel):
    """What failed `failures` times in a row; it is tried again at `retry_at_s` (seconds since 1970)."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    failures: int
    retry_at_s: float
    reason: str

    @classmethod
    def after(cls, before: Failing | None, reason: str, *, now_s: float, interval_s: float) -> Failing:
        """The state after one more failure: the wait is twice as long as before, up to a quarter of an hour."""
        failures = before.failures + 1 if before else 1
        wait_s = min(interval_s * 2.0 ** min(failures - 1, 20), _LONGEST_WAIT_S)
        return cls(failures=failures, retry_at_s=now_s + wait_s, reason=reason[:_LONGEST_REASON])

    def wait_s(self, now_s: float) -> float:
        """Seconds until it is tried again."""
        return max(0.0, self.retry_at_s - now_s)


class SensorState(BaseModel):
    """The cursor: the last generation of requests that Dagster took, the sources that fail, and the runs that have
    stalled (None before the first look)."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    generation: int = 0
    failing: dict[str, Failing] = {}
    stalled: tuple[StalledRun, ...] | None = None

    @classmethod
    def from_cursor(cls, cursor: str | None) -> SensorState:
        """Read a cursor; one that was reset, or is of another version, is a new beginning."""
        try:
            return cls.model_validate_json(cursor) if cursor else cls()
        except ValidationError:
            return cls()

    def due(self, sources: Iterable[str], now_s: float) -> list[str]:
        """The sources to look through now."""
        return [name for name in sources if name not in self.failing or self.failing[name].retry_at_s <= now_s]

    def after(
        self, looked_at: Iterable[str], failed: Mapping[str, str], *, now_s: float, interval_s: float, generation: int
    ) -> SensorState:
        """The state after a look; who failed waits (see `Failing.after`)."""
        failing = {name: state for name, state in self.failing.items() if name not in set(looked_at)}
        for name, reason in failed.items():
            failing[name] = Failing.after(self.failing.get(name), reason, now_s=now_s, interval_s=interval_s)
        return SensorState(generation=generation, failing=failing, stalled=self.stalled)

    def with_stalled(self, found: Iterable[StalledRun], unseen: Collection[str]) -> SensorState:
        """The state with the stalled runs that a look found; those of the sources that it did not see stay."""
        kept = [one for one in self.stalled or () if one.source in unseen]
        return self.model_copy(update={"stalled": (*kept, *found)})

    def told(self, now_s: float) -> list[str]:
        """A line for every source that fails."""
        return [
            f"Source {name} failed {state.failures} times in a row, "
            f"next try in {state.wait_s(now_s):.0f} s: {state.reason}"
            for name, state in self.failing.items()
        ]

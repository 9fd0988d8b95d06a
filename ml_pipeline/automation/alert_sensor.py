"""Tells people of failed checks: posts what waits to the webhook, each failure once, and again later if that fails."""

import time

import dagster as dg
from pydantic import ValidationError

from ml_pipeline.alerts.message import message
from ml_pipeline.alerts.outbox import Outbox
from ml_pipeline.alerts.webhook import post
from ml_pipeline.automation.source_health import Failing
from ml_pipeline.errors import AlertError, MlPipelineError
from ml_pipeline.resources import PipelineResource

_MOST_A_MESSAGE = 100


def build_alert_sensor(interval_s: int) -> dg.SensorDefinition:
    """The sensor that posts failed checks, all that wait in one message; it starts no runs and no run waits for it.

    A failure counts as told once the server has taken it. After a failed try the next is made after `interval_s`, then
    after twice as long, and so on up to a quarter of an hour; an answer that was lost is the only way to be told twice,
    and then with the same `id`.
    """

    @dg.sensor(
        name="alert_sensor",
        minimum_interval_seconds=interval_s,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Posts failed asset checks to `alerts.webhook` of pipeline.yaml, where one is set.",
    )
    def alert_sensor(context: dg.SensorEvaluationContext, pipeline: PipelineResource) -> dg.SkipReason:
        now_s, before = time.time(), _failing(context.cursor)
        try:
            settings = pipeline.settings()
            if not settings.alerts.address:
                return dg.SkipReason("No alerts.webhook is set in pipeline.yaml: nobody is told of failed checks.")
            outbox = Outbox(settings.alerts_path)
            waiting = outbox.waiting(_MOST_A_MESSAGE)
            if not waiting:
                return dg.SkipReason("No failed check waits to be told.")
            if before and before.wait_s(now_s):
                return dg.SkipReason(f"The next try is in {before.wait_s(now_s):.0f} s: {before.reason}")
            content = message(list(waiting.values()), settings.links, settings.alerts.fields)
            post(settings.alerts.address, content, settings.alerts.timeout_s)
            context.update_cursor("")
            outbox.remove(waiting)
        except AlertError as error:
            failing = Failing.after(before, str(error), now_s=now_s, interval_s=interval_s)
            context.update_cursor(failing.model_dump_json())
            context.log.warning(str(error))
            return dg.SkipReason(f"{len(waiting)} failed checks wait: {error}")
        except MlPipelineError as error:
            return dg.SkipReason(str(error))
        return dg.SkipReason(f"{len(waiting)} failed checks told.")

    return alert_sensor


def _failing(cursor: str | None) -> Failing | None:
    try:
        return Failing.model_validate_json(cursor) if cursor else None
    except ValidationError:
        return None

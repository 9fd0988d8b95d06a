"""Sends the points that wait for Influx, so that a server that was away catches up by itself."""

import dagster as dg

from ml_pipeline.errors import MlPipelineError
from ml_pipeline.stores.influx_sending import BoundedSender
from ml_pipeline.stores.io_managers import InfluxIOManager

_SECONDS_A_LOOK = 20.0
"""Dagster ends a sensor after a minute; a last request may take its whole time-out on top."""


def build_replay_sensor(interval_s: int) -> dg.SensorDefinition:
    """The sensor that sends what waits in the Influx buffer, for some seconds a look; it starts no runs."""

    @dg.sensor(
        name="replay_sensor",
        minimum_interval_seconds=interval_s,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Sends the points that wait for the Influx server. `ml-pipeline replay` does it at once.",
    )
    def replay_sensor(
        context: dg.SensorEvaluationContext, influx_io_manager: dg.ResourceParam[InfluxIOManager]
    ) -> dg.SkipReason:
        buffer = influx_io_manager.buffer()
        try:
            if buffer.is_empty():
                return dg.SkipReason("No points wait.")
            sender = influx_io_manager.sender()
            if sender is None:
                return dg.SkipReason("Points wait until stores.influx.url is set in pipeline.yaml.")
            report = buffer.flush(BoundedSender(sender, _SECONDS_A_LOOK))
        except MlPipelineError as error:
            return dg.SkipReason(str(error))
        for rejected in report.rejected:
            context.log.warning(
                f"{rejected.lines} points of {rejected.batch} were rejected and are kept in {rejected.path}: "
                f"{rejected.reason}"
            )
        because = f": {report.stopped_because}" if report.stopped_because else ""
        return dg.SkipReason(f"{report.sent_points} points sent, {report.remaining.points} wait{because}.")

    return replay_sensor

"""`status`: where everything stands."""

from __future__ import annotations

import click

from ml_pipeline.cli.shared import current_settings, reporting, stderr, stdout


@click.command()
@click.option("--all", "every", is_flag=True, help="List every checkpoint, scored ones too.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as one JSON object.")
@reporting
def status(every: bool, as_json: bool) -> None:
    """Show which sources answer, what is new, being scored or failed, why, and what waits for Influx."""
    from ml_pipeline.automation import local_runs
    from ml_pipeline.checkpoints.catalogue import Catalogue
    from ml_pipeline.cli.json_output import print_json
    from ml_pipeline.cli.status_view import Status, status_json, status_view
    from ml_pipeline.stores.influx_buffer import InfluxBuffer

    settings = current_settings()
    with stderr().status("Looking through the sources ..."):
        found = Catalogue(settings).look()
        with local_runs.project_instance(settings) as instance:
            keys = [checkpoint.key for checkpoint in found.checkpoints]
            states = local_runs.mark_changed(local_runs.states(instance, keys), found.checkpoints, settings)
            states = local_runs.mark_imported(states, found.checkpoints, settings)
            failed = [key for key, state in states.items() if state == local_runs.State.FAILED]
            reasons = local_runs.recent_failures(instance, failed)
    buffer = InfluxBuffer(settings.influx_buffer_path)
    now = Status(settings, found, states, reasons, buffer.pending(), buffer.rejected())
    if as_json:
        print_json(status_json(now))
        return
    console = stdout()
    console.print(status_view(now, console.options, every=every))

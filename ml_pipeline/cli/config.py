"""`config check`: whether pipeline.yaml and what it names can be used."""

from __future__ import annotations

import os

import click

from ml_pipeline.cli.shared import TextConsole, print_cut_bases, reporting, stderr
from ml_pipeline.errors import SettingsError, StoreError
from ml_pipeline.settings_file import find_config, load_settings


@click.group()
def config() -> None:
    """Look after pipeline.yaml."""


@config.command("check")
@reporting
def config_check() -> None:
    """Check the settings, the sources, the suites and the base models, and say what is there."""
    from ml_pipeline.base_models import described
    from ml_pipeline.checkpoints.catalogue import Catalogue
    from ml_pipeline.evaluation.ask import suite_samples
    from ml_pipeline.resources import suites_of

    path = find_config(os.environ)
    settings = load_settings(path)
    console = TextConsole()
    console.print(f"{path}: valid", highlight=False, soft_wrap=True)
    catalogue = Catalogue(settings)
    for name in settings.sources:
        console.print(f"  source {name}: {catalogue.source(name).identity}", highlight=False, soft_wrap=True)
    suites = suites_of(settings)
    for suite in suites:
        samples = suite_samples(suite, settings.suites)
        often = f", {samples} answers each" if samples > 1 else ""
        console.print(f"  suite {suite.name} {suite.version}: {len(suite.probes)} probes{often}", highlight=False)
        for reason, rows in suite.left_out:
            console.print(f"    rows left out: {rows}, {reason}", markup=False, highlight=False, soft_wrap=True)
    for name, model in settings.base_models.items():
        own = settings.suites_for(name)
        for suite in suites:
            suite_samples(suite, own)
        try:
            console.print(f"  base model {name}: {described(settings, name)}", highlight=False, soft_wrap=True)
        except SettingsError as error:
            console.print(f"  {error}", markup=False, highlight=False, style="yellow", soft_wrap=True)
        for suite_name, change in model.generation.items():
            changed = ", ".join(f"{field} {value}" for field, value in change.model_dump(exclude_none=True).items())
            console.print(f"    suite {suite_name}: {changed}", markup=False, highlight=False)
    try:
        print_cut_bases(settings, suites)
    except StoreError as error:
        stderr().print(f"what is stored cannot be read: {error}", style="yellow", markup=False, soft_wrap=True)

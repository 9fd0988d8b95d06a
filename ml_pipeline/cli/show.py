"""`show` and `compare`: one checkpoint, or two, looked at closely."""

from __future__ import annotations

import click

from ml_pipeline.cli.completion import complete_checkpoint, complete_suite
from ml_pipeline.cli.shared import current_settings, reporting, score_database, stderr, stdout

_EVERY = "*"
_NAME_HELP = (
    "A checkpoint is called by its key, by run@iteration, or by a part of its key that no other has: "
    "mac.lek/tuned@800, tuned@800."
)


@click.command(epilog=_NAME_HELP)
@click.argument("checkpoint", shell_complete=complete_checkpoint)
@click.option(
    "--against", help="Hold it against this checkpoint; default: its base.", shell_complete=complete_checkpoint
)
@click.option("--suite", help="This suite alone.", shell_complete=complete_suite)
@click.option(
    "--answers",
    is_flag=False,
    flag_value=_EVERY,
    metavar="[PROBE]",
    help="Show the answers to this probe, or to all, beside those of the other checkpoint.",
)
@click.option("--json", "as_json", is_flag=True, help="Print everything as one JSON object.")
@reporting
def show(checkpoint: str, against: str | None, suite: str | None, answers: str | None, as_json: bool) -> None:
    """Show a checkpoint: its scores, what it gained and lost, its answers, and what produced them."""
    from ml_pipeline.cli.answers_view import answers_json, answers_view, chosen_answers
    from ml_pipeline.cli.json_output import print_json
    from ml_pipeline.cli.show_view import show_json, show_view
    from ml_pipeline.reports.checkpoint_names import find_checkpoint, scored_checkpoints
    from ml_pipeline.reports.checkpoint_page import checkpoint_page
    from ml_pipeline.reports.scores import check_suite

    store = score_database(current_settings())
    with stderr().status("Reading the scores ..."):
        known = scored_checkpoints(store)
        other = None if against is None else find_checkpoint(against, known)
        page = checkpoint_page(store, known, find_checkpoint(checkpoint, known), other)
    if suite is not None:
        check_suite(page.scores, suite)
        page = page.of_suite(suite)
    console = stdout()
    keys = [one.key for one in (page.against, page.checkpoint) if one is not None]
    chosen = None if answers is None else chosen_answers(page.scores, keys, "" if answers == _EVERY else answers)
    if as_json:
        print_json(show_json(page) | ({} if chosen is None else {"answers": answers_json(chosen)}))
    elif chosen is not None:
        console.print(answers_view(chosen, console.options))
    else:
        console.print(show_view(page, console.options))


@click.command(epilog=_NAME_HELP)
@click.argument("a", shell_complete=complete_checkpoint)
@click.argument("b", shell_complete=complete_checkpoint)
@click.option("--suite", help="This suite alone.", shell_complete=complete_suite)
@click.option("--answers", is_flag=True, help="Show both answers to each probe that was gained or lost.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as one JSON object.")
@reporting
def compare(a: str, b: str, suite: str | None, answers: bool, as_json: bool) -> None:
    """Compare checkpoint B with A on the same probes: differences, 95% intervals, tests, and the flipped probes."""
    from ml_pipeline.cli.compare_view import compare_json, compare_view
    from ml_pipeline.cli.json_output import print_json
    from ml_pipeline.reports.checkpoint_names import find_checkpoint, scored_checkpoints
    from ml_pipeline.reports.pairs import comparable
    from ml_pipeline.reports.scores import check_suite, load_scores

    store = score_database(current_settings())
    known = scored_checkpoints(store)
    keys = [find_checkpoint(name, known).key for name in (a, b)]
    scores = load_scores(store, keys)
    if suite is not None:
        check_suite(scores, suite)
        scores = scores.only(suite=suite)
    pairing = comparable(scores, keys[0], keys[1])
    if as_json:
        print_json(compare_json(pairing, keys[0], keys[1]))
    else:
        console = stdout()
        console.print(compare_view(pairing, keys[0], keys[1], console.options, answers=answers))

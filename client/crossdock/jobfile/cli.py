"""`crossdock validate`."""

from pathlib import Path
from typing import Annotated

import typer

from crossdock.errors import ConfigError


def validate(
    job_files: Annotated[list[Path] | None, typer.Argument(help="Job files, one job each.")] = None,
    *,
    print_schema: Annotated[
        bool, typer.Option("--print-schema", help="Print the JSON schema, for editors.")
    ] = False,
) -> None:
    """Check job files, and say everything that is wrong with them. Fields: docs/job-file.md."""
    # Here, so that `crossdock --help` needs no YAML and no schema.
    from crossdock.jobfile.advice import warnings  # noqa: PLC0415
    from crossdock.jobfile.load import load, schema_text  # noqa: PLC0415

    if print_schema:
        typer.echo(schema_text(), nl=False)
    elif not job_files:
        raise typer.BadParameter("name a job file", param_hint="JOB_FILES")
    errors: list[ConfigError] = []
    for path in job_files or ():
        try:
            job = load(path)
        except ConfigError as error:
            errors.append(error)
            continue
        for warning in warnings(job):
            typer.secho(f"{path}: warning: {warning}", fg=typer.colors.YELLOW, err=True)
        stages = ", ".join(stage.name for stage in job.stages)
        typer.echo(f"{path}: job {job.name} is valid; stages: {stages}")
    if errors:
        raise ConfigError("\n".join(map(str, errors)))

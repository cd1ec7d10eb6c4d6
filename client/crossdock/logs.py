"""Logs of the processes that serve, worker and operator: JSON, one line an event.

Needs structlog, which their extras bring; what an executor imports does not import this.
"""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Final

import structlog

from crossdock.errors import ConfigError

_EXCEPTIONS: Final = structlog.processors.ExceptionRenderer(
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
)
"""Without local variables: they may hold a token."""
_TIME: Final = structlog.processors.TimeStamper(fmt="iso", utc=True)


def configure(*, level: str) -> None:
    """Log to standard error; libraries that use `logging` only from warnings on.

    Raises:
        ConfigError: there is no such level.
    """
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise ConfigError(f"--log-level {level} is not one", hint="debug, info, warning or error")
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            _TIME,
            _EXCEPTIONS,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[_logger_name, structlog.stdlib.add_log_level, _TIME],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _EXCEPTIONS,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    logging.basicConfig(level=max(number, logging.WARNING), handlers=[handler])


def _logger_name(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Say which library speaks."""
    record: logging.LogRecord | None = event.get("_record")
    return event if record is None else {**event, "logger": record.name}

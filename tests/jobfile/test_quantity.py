"""Quantities mean the bytes that Kubernetes reads in them."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossdock.errors import ConfigError
from crossdock.jobfile.explain import fields
from crossdock.jobfile.load import schema_text
from crossdock.jobfile.quantity import MAX_BYTES, parse_bytes

PATTERNS = {
    str(field["pattern"])
    for _, field in fields(json.loads(schema_text()))
    if field.get("format") == "quantity"
}


@pytest.mark.parametrize(
    ("written", "size"),
    [
        ("64Mi", 64 * 2**20),
        ("1G", 10**9),
        ("1k", 1000),
        ("1Ki", 1024),
        ("7Ei", 7 * 2**60),
        ("1.5Gi", 3 * 2**29),
        (".5Ki", 512),
        ("2.", 2),
        ("1e9", 10**9),
        ("12E-1e", None),
        ("5E2", 500),
        ("1500e-2", 15),
        ("1E", 10**18),
        ("1048576", 2**20),
        (1048576, 2**20),
        (64.0, 64),
        (str(MAX_BYTES), MAX_BYTES),
    ],
)
def test_bytes(written: float | str, size: int | None) -> None:
    if size is None:
        with pytest.raises(ConfigError):
            parse_bytes(written)
    else:
        assert parse_bytes(written) == size


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("1500m", "thousandths.*M or Mi"),
        ("64MB", "unit.*M or Mi"),
        ("64m ", "unit.*M or Mi"),
        ("1K", "unit.*k or Ki"),
        ("1mi", "unit.*Mi is"),
        ("3 parsecs", "unit.*64Mi"),
        ("", "no quantity"),
        ("Mi", "no quantity"),
        ("-1", "no quantity"),
        ("1\n", "no quantity"),
        ("٣", "no quantity"),
        ("1.5", "whole number"),
        ("1e-3", "whole number"),
        (0.5, "whole number"),
        ("0", "range"),
        (0, "range"),
        (-5, "range"),
        ("8Ei", "range"),
        ("1e99", "range"),
        ("1e999999999", "unit"),
    ],
)
def test_what_is_no_number_of_bytes(written: float | str, why: str) -> None:
    with pytest.raises(ConfigError, match=f"(?s){why}"):
        parse_bytes(written)


@given(st.integers(1, 2**40), st.sampled_from(["", "k", "M", "Ki", "Mi"]))
def test_units_multiply(count: int, unit: str) -> None:
    size = {"": 1, "k": 1000, "M": 10**6, "Ki": 1024, "Mi": 2**20}[unit]
    assert parse_bytes(f"{count}{unit}") == count * size


@given(st.text("0123456789.eE+-kKMGi m", max_size=12) | st.text(max_size=6))
def test_what_is_taken_fits_the_schema(written: str) -> None:
    """Editors and Kubernetes know the pattern only: it must let through what we take."""
    (pattern,) = PATTERNS
    try:
        size = parse_bytes(written)
    except ConfigError:
        return
    assert 1 <= size <= MAX_BYTES
    assert re.fullmatch(pattern, written)

"""The other baseline: the five TPC-H queries by Dask, from Parquet to Parquet.

    python tpch_dask.py DATA OUT

Written as one would for speed: columns and filters first, sums before joins where they shrink
much, decimals as doubles (pandas adds decimals one Python object at a time).
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from dask.distributed import Client, LocalCluster

Frame = Any
"""A Dask data frame; Dask has no types for checkers."""

PARTITION_ROWS = 500_000
TYPES = {pa.string(): pd.StringDtype("pyarrow")}


def partitions_of(directory: Path) -> list[tuple[str, list[int]]]:
    """Cut the files of a table into row groups of about `PARTITION_ROWS`."""
    found = []
    for path in sorted(map(str, directory.glob("*.parquet"))):
        meta = pq.read_metadata(path)
        count = max(1, round(meta.num_rows / PARTITION_ROWS))
        groups = np.array_split(np.arange(meta.num_row_groups), min(count, meta.num_row_groups))
        found += [(path, part.tolist()) for part in groups]
    return found


def read(partition: tuple[str, list[int]], columns: Sequence[str]) -> pd.DataFrame:
    """Read row groups as what pandas is fastest with."""
    path, groups = partition
    rows = pq.ParquetFile(path).read_row_groups(groups, columns=list(columns))
    for i, field in enumerate(rows.schema):
        if pa.types.is_string_view(field.type):
            rows = rows.set_column(i, field.name, rows.column(i).cast(pa.string()))
        elif pa.types.is_decimal(field.type):
            rows = rows.set_column(i, field.name, rows.column(i).cast(pa.float64()))
        elif pa.types.is_date(field.type):
            rows = rows.set_column(i, field.name, rows.column(i).cast(pa.timestamp("s")))
    return rows.select(columns).to_pandas(types_mapper=TYPES.get)


class Tables:
    """The tables, with the columns that a query needs."""

    def __init__(self, data: str) -> None:
        self._data = Path(data)

    def __call__(self, table: str, *columns: str) -> Frame:
        partitions = partitions_of(self._data / table)
        nothing = read((partitions[0][0], []), columns)
        return dd.from_map(read, partitions, columns=columns, meta=nothing)


def revenue(lines: Frame) -> Frame:
    return lines.l_extendedprice * (1 - lines.l_discount)


def join(one: Frame, other: Frame, left: str, right: str) -> Frame:
    return one.merge(other, left_on=left, right_on=right)


def total(rows: Frame, keys: list[str], **sums: str) -> Frame:
    """Return sums by keys that may be many: so these are shuffled, not brought to one place."""
    grouped = rows.groupby(keys, sort=False)[list(sums)]
    return grouped.agg(sums, split_out=True).reset_index()


def q3(tables: Tables) -> pd.DataFrame:
    customer = tables("customer", "c_custkey", "c_mktsegment")
    customer = customer[customer.c_mktsegment == "BUILDING"][["c_custkey"]]
    orders = tables("orders", "o_orderkey", "o_custkey", "o_orderdate", "o_shippriority")
    orders = join(
        orders[orders.o_orderdate < pd.Timestamp(1995, 3, 15)], customer, "o_custkey", "c_custkey"
    )
    lines = tables("lineitem", "l_orderkey", "l_extendedprice", "l_discount", "l_shipdate")
    lines = lines[lines.l_shipdate > pd.Timestamp(1995, 3, 15)]
    lines = lines.assign(revenue=revenue(lines))[["l_orderkey", "revenue"]]
    orders = orders[["o_orderkey", "o_orderdate", "o_shippriority"]]
    rows = join(lines, orders, "l_orderkey", "o_orderkey")
    sums = total(rows, ["l_orderkey", "o_orderdate", "o_shippriority"], revenue="sum")
    found = sums.nlargest(20, "revenue").compute()
    found = found.sort_values(["revenue", "o_orderdate"], ascending=[False, True]).head(10)
    return found[["l_orderkey", "revenue", "o_orderdate", "o_shippriority"]]


def q5(tables: Tables) -> pd.DataFrame:
    region = tables("region", "r_regionkey", "r_name")
    nation = tables("nation", "n_nationkey", "n_name", "n_regionkey")
    nation = join(nation, region[region.r_name == "ASIA"], "n_regionkey", "r_regionkey")
    supplier = tables("supplier", "s_suppkey", "s_nationkey")
    supplier = join(supplier, nation[["n_nationkey", "n_name"]], "s_nationkey", "n_nationkey")
    orders = tables("orders", "o_orderkey", "o_custkey", "o_orderdate")
    orders = orders[
        (orders.o_orderdate >= pd.Timestamp(1994, 1, 1))
        & (orders.o_orderdate < pd.Timestamp(1995, 1, 1))
    ][["o_orderkey", "o_custkey"]]
    buyers = join(orders, tables("customer", "c_custkey", "c_nationkey"), "o_custkey", "c_custkey")
    lines = tables("lineitem", "l_orderkey", "l_suppkey", "l_extendedprice", "l_discount")
    lines = lines.assign(revenue=revenue(lines))[["l_orderkey", "l_suppkey", "revenue"]]
    lines = join(lines, supplier, "l_suppkey", "s_suppkey")
    rows = lines.merge(
        buyers[["o_orderkey", "c_nationkey"]],
        left_on=["l_orderkey", "s_nationkey"],
        right_on=["o_orderkey", "c_nationkey"],
    )
    found = rows.groupby("n_name")[["revenue"]].sum().compute().reset_index()
    return found.sort_values("revenue", ascending=False)


def q9(tables: Tables) -> pd.DataFrame:
    part = tables("part", "p_partkey", "p_name")
    part = part[part.p_name.str.contains("green")][["p_partkey"]]
    nation = tables("nation", "n_nationkey", "n_name")
    supplier = join(
        tables("supplier", "s_suppkey", "s_nationkey"), nation, "s_nationkey", "n_nationkey"
    )[["s_suppkey", "n_name"]]
    costs = join(
        tables("partsupp", "ps_partkey", "ps_suppkey", "ps_supplycost"),
        part,
        "ps_partkey",
        "p_partkey",
    )
    lines = tables(
        "lineitem", "l_orderkey", "l_partkey", "l_suppkey", "l_quantity", "l_extendedprice",
        "l_discount",
    )  # fmt: skip
    rows = lines.merge(
        costs[["ps_partkey", "ps_suppkey", "ps_supplycost"]],
        left_on=["l_partkey", "l_suppkey"],
        right_on=["ps_partkey", "ps_suppkey"],
    )
    rows = rows.assign(sum_profit=revenue(rows) - rows.ps_supplycost * rows.l_quantity)
    rows = rows[["l_orderkey", "l_suppkey", "sum_profit"]]
    rows = join(rows, supplier, "l_suppkey", "s_suppkey")
    orders = tables("orders", "o_orderkey", "o_orderdate")
    rows = join(rows, orders, "l_orderkey", "o_orderkey")
    rows = rows.assign(o_year=rows.o_orderdate.dt.year)
    found = rows.groupby(["n_name", "o_year"])[["sum_profit"]].sum().compute().reset_index()
    return found.sort_values(["n_name", "o_year"], ascending=[True, False])


def q18(tables: Tables) -> pd.DataFrame:
    sums = total(tables("lineitem", "l_orderkey", "l_quantity"), ["l_orderkey"], l_quantity="sum")
    large = sums[sums.l_quantity > 300]
    orders = tables("orders", "o_orderkey", "o_custkey", "o_orderdate", "o_totalprice")
    rows = join(orders, large, "o_orderkey", "l_orderkey")
    rows = join(rows, tables("customer", "c_custkey", "c_name"), "o_custkey", "c_custkey")
    found = rows.compute().sort_values(["o_totalprice", "o_orderdate"], ascending=[False, True])
    names = ["c_name", "c_custkey", "o_orderkey", "o_orderdate", "o_totalprice", "l_quantity"]
    return found[names].head(100)


def q21(tables: Tables) -> pd.DataFrame:
    orders = tables("orders", "o_orderkey", "o_orderstatus")
    orders = orders[orders.o_orderstatus == "F"][["o_orderkey"]]
    lines = tables("lineitem", "l_orderkey", "l_suppkey", "l_receiptdate", "l_commitdate")
    lines = lines.assign(late=(lines.l_receiptdate > lines.l_commitdate).astype("int64"))
    lines = join(lines[["l_orderkey", "l_suppkey", "late"]], orders, "l_orderkey", "o_orderkey")
    # One row for each supplier of an order: how many of the lines were late.
    pairs = total(lines, ["l_orderkey", "l_suppkey"], late="sum")
    pairs = pairs.assign(suppliers=1, suspects=(pairs.late > 0).astype("int64"))
    per_order = total(pairs, ["l_orderkey"], suppliers="sum", suspects="sum")
    per_order = per_order[(per_order.suppliers > 1) & (per_order.suspects == 1)][["l_orderkey"]]
    nation = tables("nation", "n_nationkey", "n_name")
    nation = nation[nation.n_name == "SAUDI ARABIA"][["n_nationkey"]]
    supplier = tables("supplier", "s_suppkey", "s_name", "s_nationkey")
    supplier = join(supplier, nation, "s_nationkey", "n_nationkey")[["s_suppkey", "s_name"]]
    late = join(pairs[pairs.late > 0], supplier, "l_suppkey", "s_suppkey")
    rows = late[["l_orderkey", "s_name", "late"]].merge(per_order, on="l_orderkey")
    found = rows.groupby("s_name")[["late"]].sum().compute().reset_index()
    found = found.sort_values(["late", "s_name"], ascending=[False, True])
    return found.rename(columns={"late": "numwait"}).head(100)


QUERIES: dict[str, Callable[[Tables], pd.DataFrame]] = {
    "q3": q3, "q5": q5, "q9": q9, "q18": q18, "q21": q21,
}  # fmt: skip


def main(data: str, out: str) -> None:
    Path(out).mkdir(parents=True, exist_ok=True)
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster),
    ):
        for name, query in QUERIES.items():
            query(Tables(data)).to_parquet(f"{out}/{name}.parquet", index=False)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Five TPC-H queries, cut into stages. A stage that is called like a table reads that table.

Each stage is SQL over its inputs, which it sees under their names, and the columns by which its
result is partitioned. A row meets those it joins with because both sides are partitioned by the
key of the join. Sums are made where the rows are, and added up where they meet.

Source: TPC Benchmark H, revision 3.0.1, clause 2.4, with its validation parameters.
"""

from dataclasses import dataclass

TABLES = (
    "region", "nation", "supplier", "customer", "part", "partsupp", "orders", "lineitem",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Step:
    """One stage of a query."""

    sql: str
    keys: tuple[str, ...] = ()
    """Columns by which the result is partitioned; none: it is small, and goes to partition 0."""


REVENUE = "l_extendedprice * (1 - l_discount)"

Q3 = {
    "customer": Step(
        "SELECT c_custkey FROM customer WHERE c_mktsegment = 'BUILDING'", ("c_custkey",)
    ),
    "orders": Step(
        "SELECT o_orderkey, o_custkey, o_orderdate, o_shippriority FROM orders "
        "WHERE o_orderdate < DATE '1995-03-15'",
        ("o_custkey",),
    ),
    "lineitem": Step(
        f"SELECT l_orderkey, sum({REVENUE}) AS revenue FROM lineitem "
        "WHERE l_shipdate > DATE '1995-03-15' GROUP BY l_orderkey",
        ("l_orderkey",),
    ),
    "building": Step(
        "SELECT o_orderkey, o_orderdate, o_shippriority FROM orders "
        "JOIN customer ON c_custkey = o_custkey",
        ("o_orderkey",),
    ),
    "revenue": Step(
        "SELECT l_orderkey, sum(revenue) AS revenue, o_orderdate, o_shippriority FROM lineitem "
        "JOIN building ON l_orderkey = o_orderkey GROUP BY ALL "
        "ORDER BY revenue DESC, o_orderdate LIMIT 10"
    ),
    "result": Step("SELECT * FROM revenue ORDER BY revenue DESC, o_orderdate LIMIT 10"),
}

Q5 = {
    "asia": Step(
        "SELECT s_suppkey, s_nationkey, n_name FROM supplier JOIN nation ON s_nationkey = "
        "n_nationkey JOIN region ON n_regionkey = r_regionkey WHERE r_name = 'ASIA'"
    ),
    "customer": Step("SELECT c_custkey, c_nationkey FROM customer", ("c_custkey",)),
    "orders": Step(
        "SELECT o_orderkey, o_custkey FROM orders WHERE o_orderdate >= DATE '1994-01-01' "
        "AND o_orderdate < DATE '1995-01-01'",
        ("o_custkey",),
    ),
    "lineitem": Step(
        f"SELECT l_orderkey, l_suppkey, sum({REVENUE}) AS revenue FROM lineitem GROUP BY ALL",
        ("l_orderkey",),
    ),
    "buyers": Step(
        "SELECT o_orderkey, c_nationkey FROM orders JOIN customer ON c_custkey = o_custkey",
        ("o_orderkey",),
    ),
    "volume": Step(
        "SELECT n_name, sum(revenue) AS revenue FROM lineitem "
        "JOIN buyers ON l_orderkey = o_orderkey "
        "JOIN asia ON l_suppkey = s_suppkey AND c_nationkey = s_nationkey GROUP BY n_name"
    ),
    "result": Step(
        "SELECT n_name, sum(revenue) AS revenue FROM volume GROUP BY n_name ORDER BY revenue DESC"
    ),
}

Q9 = {
    "sellers": Step(
        "SELECT s_suppkey, n_name AS nation FROM supplier JOIN nation ON s_nationkey = n_nationkey"
    ),
    "part": Step("SELECT p_partkey FROM part WHERE p_name LIKE '%green%'", ("p_partkey",)),
    "partsupp": Step("SELECT ps_partkey, ps_suppkey, ps_supplycost FROM partsupp", ("ps_partkey",)),
    "lineitem": Step(
        f"SELECT l_orderkey, l_partkey, l_suppkey, l_quantity, {REVENUE} AS revenue FROM lineitem",
        ("l_partkey",),
    ),
    "orders": Step("SELECT o_orderkey, year(o_orderdate) AS o_year FROM orders", ("o_orderkey",)),
    "green": Step(
        "SELECT l_orderkey, nation, sum(revenue - ps_supplycost * l_quantity) AS profit "
        "FROM lineitem JOIN part ON p_partkey = l_partkey "
        "JOIN partsupp ON ps_partkey = l_partkey AND ps_suppkey = l_suppkey "
        "JOIN sellers ON s_suppkey = l_suppkey GROUP BY ALL",
        ("l_orderkey",),
    ),
    "profit": Step(
        "SELECT nation, o_year, sum(profit) AS sum_profit FROM green "
        "JOIN orders ON o_orderkey = l_orderkey GROUP BY ALL"
    ),
    "result": Step(
        "SELECT nation, o_year, sum(sum_profit) AS sum_profit FROM profit GROUP BY ALL "
        "ORDER BY nation, o_year DESC"
    ),
}

Q18 = {
    "lineitem": Step(
        "SELECT l_orderkey, sum(l_quantity) AS quantity FROM lineitem GROUP BY l_orderkey",
        ("l_orderkey",),
    ),
    "orders": Step(
        "SELECT o_orderkey, o_custkey, o_orderdate, o_totalprice FROM orders", ("o_orderkey",)
    ),
    "large": Step(
        "SELECT o_orderkey, o_custkey, o_orderdate, o_totalprice, quantity FROM orders JOIN "
        "(SELECT l_orderkey, sum(quantity) AS quantity FROM lineitem GROUP BY l_orderkey "
        "HAVING sum(quantity) > 300) ON l_orderkey = o_orderkey"
    ),
    "customer": Step("SELECT c_custkey, c_name FROM customer", ("c_custkey",)),
    "buyers": Step(
        "SELECT c_name, c_custkey, o_orderkey, o_orderdate, o_totalprice, quantity FROM large "
        "JOIN customer ON c_custkey = o_custkey"
    ),
    "result": Step("SELECT * FROM buyers ORDER BY o_totalprice DESC, o_orderdate LIMIT 100"),
}

Q21 = {
    "saudi": Step(
        "SELECT s_suppkey, s_name FROM supplier JOIN nation ON s_nationkey = n_nationkey "
        "WHERE n_name = 'SAUDI ARABIA'"
    ),
    "orders": Step("SELECT o_orderkey FROM orders WHERE o_orderstatus = 'F'", ("o_orderkey",)),
    "lineitem": Step(
        "SELECT l_orderkey, l_suppkey, l_receiptdate > l_commitdate AS late FROM lineitem",
        ("l_orderkey",),
    ),
    "waiting": Step(
        # Orders of several suppliers of whom exactly one was late; how many lines were his.
        "SELECT s_name, sum(lines) AS numwait FROM (SELECT l_orderkey, "
        "any_value(l_suppkey) FILTER (late) AS suspect, count(*) FILTER (late) AS lines "
        "FROM lineitem SEMI JOIN orders ON o_orderkey = l_orderkey GROUP BY l_orderkey "
        "HAVING count(DISTINCT l_suppkey) > 1 "
        "AND count(DISTINCT l_suppkey) FILTER (late) = 1) "
        "JOIN saudi ON s_suppkey = suspect GROUP BY s_name"
    ),
    "result": Step(
        "SELECT s_name, sum(numwait)::BIGINT AS numwait FROM waiting GROUP BY s_name "
        "ORDER BY numwait DESC, s_name LIMIT 100"
    ),
}

QUERIES = {"q3": Q3, "q5": Q5, "q9": Q9, "q18": Q18, "q21": Q21}

WHOLE = {
    "q3": f"""
        SELECT l_orderkey, sum({REVENUE}) AS revenue, o_orderdate, o_shippriority
        FROM customer, orders, lineitem
        WHERE c_mktsegment = 'BUILDING' AND c_custkey = o_custkey AND l_orderkey = o_orderkey
          AND o_orderdate < DATE '1995-03-15' AND l_shipdate > DATE '1995-03-15'
        GROUP BY l_orderkey, o_orderdate, o_shippriority
        ORDER BY revenue DESC, o_orderdate LIMIT 10""",
    "q5": f"""
        SELECT n_name, sum({REVENUE}) AS revenue
        FROM customer, orders, lineitem, supplier, nation, region
        WHERE c_custkey = o_custkey AND l_orderkey = o_orderkey AND l_suppkey = s_suppkey
          AND c_nationkey = s_nationkey AND s_nationkey = n_nationkey
          AND n_regionkey = r_regionkey AND r_name = 'ASIA'
          AND o_orderdate >= DATE '1994-01-01' AND o_orderdate < DATE '1995-01-01'
        GROUP BY n_name ORDER BY revenue DESC""",
    "q9": f"""
        SELECT n_name AS nation, year(o_orderdate) AS o_year,
               sum({REVENUE} - ps_supplycost * l_quantity) AS sum_profit
        FROM part, supplier, lineitem, partsupp, orders, nation
        WHERE s_suppkey = l_suppkey AND ps_suppkey = l_suppkey AND ps_partkey = l_partkey
          AND p_partkey = l_partkey AND o_orderkey = l_orderkey AND s_nationkey = n_nationkey
          AND p_name LIKE '%green%'
        GROUP BY ALL ORDER BY nation, o_year DESC""",
    "q18": """
        SELECT c_name, c_custkey, o_orderkey, o_orderdate, o_totalprice,
               sum(l_quantity) AS quantity
        FROM customer, orders, lineitem
        WHERE o_orderkey IN (SELECT l_orderkey FROM lineitem GROUP BY l_orderkey
                             HAVING sum(l_quantity) > 300)
          AND c_custkey = o_custkey AND o_orderkey = l_orderkey
        GROUP BY ALL ORDER BY o_totalprice DESC, o_orderdate LIMIT 100""",
    "q21": """
        SELECT s_name, count(*) AS numwait
        FROM supplier, lineitem l1, orders, nation
        WHERE s_suppkey = l1.l_suppkey AND o_orderkey = l1.l_orderkey AND o_orderstatus = 'F'
          AND l1.l_receiptdate > l1.l_commitdate AND s_nationkey = n_nationkey
          AND n_name = 'SAUDI ARABIA'
          AND EXISTS (SELECT * FROM lineitem l2 WHERE l2.l_orderkey = l1.l_orderkey
                      AND l2.l_suppkey <> l1.l_suppkey)
          AND NOT EXISTS (SELECT * FROM lineitem l3 WHERE l3.l_orderkey = l1.l_orderkey
                          AND l3.l_suppkey <> l1.l_suppkey
                          AND l3.l_receiptdate > l3.l_commitdate)
        GROUP BY s_name ORDER BY numwait DESC, s_name LIMIT 100""",
}
"""The queries as the benchmark has them, for one engine on all data."""

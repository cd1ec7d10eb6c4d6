"""The baseline: the five TPC-H queries by PySpark, from Parquet to Parquet.

python tpch_spark.py DATA OUT
"""

import sys
from pathlib import Path

from pyspark.sql import SparkSession

sys.path.insert(0, str(Path(__file__).parent.parent.parent / "examples" / "tpch"))

from queries import TABLES, WHOLE


def main(data: str, out: str) -> None:
    spark = (
        SparkSession.builder.master("local-cluster[2,1,2048]")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.executor.memory", "2g")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.shuffle.partitions", "16")
        .getOrCreate()
    )
    for table in TABLES:
        spark.read.parquet(f"{data}/{table}").createOrReplaceTempView(table)
    for query, sql in WHOLE.items():
        spark.sql(sql).write.parquet(f"{out}/{query}")
    spark.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])

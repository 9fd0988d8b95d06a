"""Where scores are kept: Parquet (the truth), DuckDB (what people query) and Influx (points for dashboards)."""

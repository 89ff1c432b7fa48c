"""The published JSON Schema of `benchmark.json`: `python -m segkc_deploy.benchmarks.schema_file > FILE.json`."""

import json
from typing import Any

from segkc_deploy.benchmarks.schema import FORMAT, BenchmarkResult


def json_schema() -> dict[str, Any]:
    """Return the schema (JSON Schema, draft 2020-12) of what `BenchmarkResult.write` stores."""
    schema = BenchmarkResult.model_json_schema()
    schema["properties"]["format"] = {"const": FORMAT}
    schema["required"] = ["format", *schema["required"]]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=1))

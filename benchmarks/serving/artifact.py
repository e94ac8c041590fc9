"""A large artifact up and down, by the real client and by plain boto3 to the same store: prints seconds as JSON.

usage: artifact.py FILE BUCKET, with what MLflow's client and boto3 need, and S3_ENDPOINT
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import boto3
from mlflow import MlflowClient


def seconds(action: Callable[[], object]) -> float:
    """How long it took."""
    start = time.perf_counter()
    action()
    return round(time.perf_counter() - start, 3)


def main() -> None:
    """Both ways, and what they left behind removed."""
    file, bucket = Path(sys.argv[1]), sys.argv[2]
    client = MlflowClient()
    store = boto3.client("s3", endpoint_url=os.environ["S3_ENDPOINT"])
    run = client.create_run("0").info.run_id
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        result = {
            "boto3 up": seconds(lambda: store.upload_file(str(file), bucket, "plain")),
            "up": seconds(lambda: client.log_artifact(run, str(file))),
            "boto3 down": seconds(lambda: store.download_file(bucket, "plain", f"{folder}/plain")),
            "down": seconds(lambda: client.download_artifacts(run, file.name, folder)),
        }
        assert (Path(folder) / file.name).read_bytes()[-1000:] == file.read_bytes()[-1000:]
    for each in store.list_objects_v2(Bucket=bucket).get("Contents", []):
        store.delete_object(Bucket=bucket, Key=each["Key"])
    print(json.dumps(result))


main()

"""Makes the bucket of MLFLOW_ARTIFACTS_DESTINATION in an S3 of one's own, unless it is there."""

import os
from contextlib import suppress
from urllib.parse import urlparse

import boto3

s3 = boto3.client("s3", endpoint_url=os.environ["MLFLOW_S3_ENDPOINT_URL"])
with suppress(s3.exceptions.BucketAlreadyOwnedByYou, s3.exceptions.BucketAlreadyExists):
    s3.create_bucket(Bucket=urlparse(os.environ["MLFLOW_ARTIFACTS_DESTINATION"]).netloc)

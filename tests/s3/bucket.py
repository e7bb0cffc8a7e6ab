"""Makes a bucket: bucket.py ENDPOINT NAME, with the credentials in AWS_*. One signed request (signature version 4)."""

import datetime
import hashlib
import hmac
import http.client
import os
import sys
import urllib.parse


def digest(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def main() -> None:
    host = urllib.parse.urlparse(sys.argv[1]).netloc
    path = "/" + sys.argv[2]
    region = os.environ["AWS_REGION"]
    now = datetime.datetime.now(datetime.timezone.utc)
    day, time = now.strftime("%Y%m%d"), now.strftime("%Y%m%dT%H%M%SZ")
    body = hashlib.sha256(b"").hexdigest()
    names = "host;x-amz-content-sha256;x-amz-date"
    request = f"PUT\n{path}\n\nhost:{host}\nx-amz-content-sha256:{body}\nx-amz-date:{time}\n\n{names}\n{body}"
    scope = f"{day}/{region}/s3/aws4_request"
    to_sign = f"AWS4-HMAC-SHA256\n{time}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = ("AWS4" + os.environ["AWS_SECRET_ACCESS_KEY"]).encode()
    for part in (day, region, "s3", "aws4_request"):
        key = digest(key, part)
    signature = digest(key, to_sign).hex()
    credential = f"{os.environ['AWS_ACCESS_KEY_ID']}/{scope}"
    headers = {
        "x-amz-content-sha256": body,
        "x-amz-date": time,
        "Authorization": f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={names}, Signature={signature}",
    }
    connection = http.client.HTTPConnection(host, timeout=60)
    connection.request("PUT", path, headers=headers)
    answer = connection.getresponse()
    if answer.status != 200:
        sys.exit(f"the bucket is not made: {answer.status} {answer.read()[:300]!r}")


main()

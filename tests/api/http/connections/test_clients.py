"""Ordinary clients that offer HTTP/2 with each request, as they come: their edits are applied."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests import factories
from tests.stack import Running

JAVA, CURL = shutil.which("java"), shutil.which("curl")


def url(stack: Running, post: str) -> str:
    assert stack.api is not None
    return f"{stack.api.url}/v1/posts/{post}"


@pytest.mark.skipif(JAVA is None, reason="no java here; Debian's is in default-jdk-headless")
def test_the_http_client_of_the_jdk(stack: Running) -> None:
    post = stack.post()
    source = Path(__file__).with_name("OfferHttp2.java")
    command = [str(JAVA), "-Xmx64m", str(source), url(stack, post), factories.SECRET, "5"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    answers = [line.split(" ", 2) for line in ran.stdout.splitlines()]
    assert [(status, version) for status, version, _ in answers] == [("200", "HTTP_1_1")] * 5
    assert [json.loads(body)["caption"] for *_, body in answers] == [f"from Java {number}" for number in range(5)]


@pytest.mark.skipif(CURL is None, reason="no curl here")
@pytest.mark.parametrize("length", [10, 2_000])
def test_curl_with_http2(stack: Running, length: int) -> None:
    """The longer body is one for which curl waits for 100 first."""
    post = stack.post()
    command = [
        *(str(CURL), "--silent", "--show-error", "--noproxy", "*", "--http2", "--request", "PATCH", url(stack, post)),
        *("--header", f"Authorization: Bearer {factories.SECRET}", "--header", "Content-Type: application/json"),
        *("--data", json.dumps({"caption": "c" * length}), "--write-out", "\n%{http_code}"),
        *(["--header", "Expect: 100-continue"] if length > 1_000 else []),
    ]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    body, status = ran.stdout.rsplit("\n", 1)
    assert (status, json.loads(body)["caption"]) == ("200", "c" * length)

"""The rules for URLs as two tables, and that whatever passes means the same to others."""

from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain import urls

GOOD_URLS = [
    "https://example.com",
    "http://example.com/",
    "HTTPS://EXAMPLE.COM/A",
    "https://example.com?x=1",
    "https://example.com#top",
    "https://example.com:8443/a/b.mp4?X-Amz-Signature=a%2Fb&c=d#e",
    "https://example.com:65535/",
    "https://example.com./a",
    "https://a_b.example.com/",
    "https://xn--mnchen-3ya.de/",
    "https://m\u00fcnchen.de/\u00fcber.jpg",
    "https://\u0909\u0926\u093e\u0939\u0930\u0923.\u092a\u0930\u0940\u0915\u094d\u0937\u093e/",
    "https://localhost:9000/bucket/a.mp4",
    "http://127.0.0.1/a",
    "http://[2001:db8::1]:8080/a",
    "https://example.com/a@b:c",
    "https://example.com/" + "a" * (2_048 - len("https://example.com/")),
]

BAD_URLS = [
    "",
    "example.com/a.mp4",
    "//example.com/a.mp4",
    "ftp://example.com/a",
    "http\u017f://example.com/a",
    "javascript:alert(1)",
    "data:video/mp4;base64,AAAA",
    "file:///etc/passwd",
    "http:",
    "http:/example.com",
    "http://",
    "http:///a",
    "http://?a",
    "http://#",
    "http://.",
    "http://..",
    "http://.example.com",
    "http://a..b/",
    "http://-a.com/",
    "http://a-.com/",
    "http://[",
    "http://]",
    "http://[]",
    "http://[::1",
    "http://::1/",
    "http://[::1]x/",
    "http://[fe80::1%25eth0]/",
    "http://[1.2.3.4]/",
    "http://[v1.a]/",
    "http://a:99999",
    "http://a:65536/",
    "http://a:0/",
    "http://a:/",
    "http://a:-1/",
    "http://a:b/",
    "http://a:8\u0660/",
    "http://a:1:2/",
    "http://256.1.1.1/",
    "http://1.2.3/",
    "http://0x7f.1/",
    "http://2130706433/",
    "http://user@example.com/",
    "http://user:pass@example.com/",
    "http://@example.com/",
    "http://:@example.com/",
    "http://example.com\\@evil.com/",
    "http:\\\\example.com",
    "https://example.com/a b",
    " https://example.com/",
    "https://example.com/\n",
    "https://exam\tple.com/",
    "https://example.com/\x7f",
    "https://example.com/\x85",
    "https://example.com/\u2028",
    "https://example.com/\u3000",
    "https://exam\u200bple.com/",
    "https://example.com/\u202egpj.exe",
    "https://example.com/\ufeff",
    "https://ex%41mple.com/",
    "https://exa<mple.com/",
    "https://example\u3002com/",
    "https://\uff45xample.com/",
    "https://a\u2488com/",
    "https://a\u2100b.com/",
    "https://\U0001f600.com/",
    "https://" + "a" * 64 + ".com/",
    "https://" + "a." * 130 + "com/",
    "https://example.com/" + "a" * 2_029,
]


@pytest.mark.parametrize("url", GOOD_URLS)
def test_a_good_url_has_no_fault(url):
    assert urls.fault_of(url) is None


@pytest.mark.parametrize("url", BAD_URLS)
def test_a_bad_url_has_a_fault_that_reads_on_from_its_fields_name_and_does_not_quote_it(url):
    fault = urls.fault_of(url)
    assert fault is not None
    assert fault.startswith(("must ", "may "))
    assert len(url) < 8 or url not in fault


pieces = st.sampled_from(
    ["http", "https", ":", "/", "//", "@", "[", "]", "::1", "%", "\\", "?", "#", ".", "a", "1", "99999", "\u00fc", " "]
)
clean = st.text(st.characters(exclude_characters="\0", codec="utf-8"))


@given(st.lists(pieces | st.characters(codec="utf-8"), max_size=14).map(lambda tail: "http://" + "".join(tail)) | clean)
def test_whatever_url_is_taken_other_parsers_take_too_and_read_alike(url):
    if urls.fault_of(url) is not None:
        return
    parts = urlsplit(url)
    assert parts.scheme in {"http", "https"}
    assert parts.hostname
    assert parts.username is None
    assert parts.password is None
    assert parts.port is None or 1 <= parts.port <= 65_535


@given(st.from_regex(urls._USUAL, fullmatch=True) | st.sampled_from([*GOOD_URLS, *BAD_URLS]))
def test_what_is_good_at_a_glance_is_good(url: str) -> None:
    assert not urls.is_usual(url) or urls.fault_of(url) is None


def test_most_urls_are_good_at_a_glance() -> None:
    assert urls.is_usual("https://cdn.example.com/clips/a.mp4?X-Amz-Signature=a%2Fb&c=d#e")

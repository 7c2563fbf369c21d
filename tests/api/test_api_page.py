"""docs/api.md says the numbers that the code has."""

from pathlib import Path

from api.http import headers
from shared.domain import captions, errors
from shared.settings import Settings

PAGE = (Path(__file__).parents[2] / "docs/api.md").read_text()


def test_the_page_has_the_limits_of_captions() -> None:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("|")]
    in_page = {
        (row[0].split()[0].lower(), int(row[1].replace(",", ""))) for row in rows if row[0].startswith(("Tik", "Inst"))
    }
    assert in_page == {(platform, limit.most) for (platform, _), limits in captions.LIMITS.items() for limit in limits}


def test_the_page_has_the_other_numbers() -> None:
    config = Settings()
    assert f"at most {headers.TAGS_MAX} tags each" in PAGE
    assert f"within {errors.UNSETTLED_SECONDS} s of the 503" in PAGE
    assert f"kept for {config.idempotency_hours} hours" in PAGE
    assert f"takes longer than {config.database_patience:.0f} s" in PAGE
    assert f"({config.wait_max:.0f} at most)" in PAGE

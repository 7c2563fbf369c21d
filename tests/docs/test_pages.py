"""What the pages say is what the code, the alerts and the dot files say."""

import ast
import re
import tomllib

import pytest
import yaml

from shared.cli.configuration import page as configuration
from tests.docs.pages import PAGES, ROOT, text_of

DECISIONS = [page for page in PAGES if re.match(r"docs/decisions/\d", page)]
CLAIMED = re.findall(r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text())


def test_the_page_of_settings_is_made_from_the_settings() -> None:
    again = "make it again: .venv/bin/python -m shared.cli.configuration > docs/configuration.md"
    assert text_of("docs/configuration.md") == configuration(), again


def test_every_variable_that_the_code_reads_stands_on_the_page_of_settings() -> None:
    files = [path for room in ("api", "worker", "shared") for path in (ROOT / room).rglob("*.py")]
    files += [ROOT / "docker-compose.yml", ROOT / "Dockerfile"]
    named = {name for path in files for name in re.findall(r"REDRAFT_[A-Z][A-Z_]*[A-Z]\b", path.read_text())}
    page = configuration()
    assert {name for name in named if f"`{name}`" not in page} == set()


def test_every_alert_is_explained_to_operators_and_no_other() -> None:
    groups = yaml.safe_load((ROOT / "docs/alerts.yml").read_text())["groups"]
    rules = [rule["alert"] for group in groups for rule in group["rules"]]
    assert re.findall(r"^\| `(Redraft\w+)` \|", text_of("docs/operations.md"), re.MULTILINE) == rules


def test_readme_is_short_and_its_contents_are_its_headings() -> None:
    text = text_of("README.md")
    assert len(text.splitlines()) <= 200
    contents = re.findall(r"^- \[(.+)\]\(#", text, re.MULTILINE)
    assert contents == re.findall(r"^## (.+)$", text, re.MULTILINE)


@pytest.mark.parametrize("page", DECISIONS)
def test_a_decision_says_its_status_date_and_what_enforces_it(page: str) -> None:
    text = text_of(page)
    number = int(page.rpartition("/")[2][:4])
    assert text.startswith(f"# {number}. ")
    assert re.search(r"^- \*\*Status:\*\* (proposed|accepted|superseded by .+)$", text, re.MULTILINE)
    assert re.search(r"^- \*\*Date:\*\* 20\d\d-\d\d-\d\d", text, re.MULTILINE)
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert headings == ["Context", "Decision", "Consequences", "Alternatives"]
    enforced = re.search(r"^- \*\*Enforced by:\*\* (.+?)\n\n", text, re.MULTILINE | re.DOTALL)
    assert enforced
    files = re.findall(r"`(tests/[\w/.]+)`", enforced[1])
    assert files or "make bench" in enforced[1]
    assert [name for name in files if not (ROOT / name).exists()] == []


def test_every_decision_is_in_the_list_with_its_title() -> None:
    listed = re.findall(r"^\| (\d+) \| \[(.+)\]\((.+)\) \|$", text_of("docs/decisions/README.md"), re.MULTILINE)
    assert [f"docs/decisions/{file}" for _, _, file in listed] == DECISIONS


@pytest.mark.parametrize("page", PAGES)
def test_a_file_that_a_page_links_to_is_there(page: str) -> None:
    prose = re.sub(r"^```.*?^```$", "", text_of(page), flags=re.MULTILINE | re.DOTALL)
    links = re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", prose)
    folder = (ROOT / page).parent
    assert {link for link in links if not (folder / link).exists()} == set()


@pytest.mark.parametrize("page", PAGES)
def test_a_file_of_the_code_that_a_page_names_is_there(page: str) -> None:
    named = set(re.findall(r"`((?:api|worker|shared|tests|docs)/[\w/.-]+)`", text_of(page)))
    assert {name for name in named if not (ROOT / name).exists()} == set()


def test_pre_commit_has_the_ruff_of_the_lock_file() -> None:
    locked = re.search(r"^ruff==(\S+)", (ROOT / "tests/requirements.lock").read_text(), re.MULTILINE)
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert locked
    assert repository["rev"] == f"v{locked[1]}"


def test_the_workflow_calls_what_developers_call_on_the_oldest_and_newest_python() -> None:
    (job,) = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"].values()
    assert job["runs-on"] == "ubuntu-latest"
    assert job["strategy"]["matrix"]["python"] == [CLAIMED[0], CLAIMED[-1]]
    assert job["steps"][-1] == {"run": ".ci/run"}


def test_readme_claims_the_pythons_of_the_package() -> None:
    assert f"Python {', '.join(CLAIMED[:-1])} or {CLAIMED[-1]}" in text_of("README.md")


def test_only_files_that_there_are_go_into_the_package() -> None:
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["*"]
    files = [path for room in ("api", "worker", "shared") for path in (ROOT / room).rglob("*")]
    assert [one for one in patterns if not any(path.match(one) for path in files)] == []


def test_the_version_stands_in_one_place() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for room in ("api", "worker", "shared"):
        for path in (ROOT / room).rglob("*.py"):
            strings = [node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)]
            assert version not in strings, path
    image = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["api"]["image"]
    assert image == f"redraft:{version}"
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text()

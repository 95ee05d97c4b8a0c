"""Articles from files of each kind, and what is said about files that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trtllm_port.errors import PortError
from trtllm_port.evaluation.datasets import Article, load_articles

ROWS = [{"id": n, "article": f"Article {n}, with a comma.", "highlights": f"Summary {n}"} for n in range(5)]


def _write(path: Path, rows: list[dict[str, Any]]) -> Path:
    from datasets import Dataset

    dataset = Dataset.from_list(rows)
    if path.suffix == ".parquet":
        dataset.to_parquet(path)
    elif path.suffix == ".csv":
        dataset.to_csv(path, index=False)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_files_of_every_kind_give_the_same_articles(tmp_path: Path, suffix: str) -> None:
    path = _write(tmp_path / f"some{suffix}", ROWS)
    found = load_articles(path, count=3)
    assert found.name == str(path)
    assert found.articles == tuple(Article(f"Article {n}, with a comma.", f"Summary {n}") for n in range(3))


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_files_with_a_byte_order_mark_give_the_same_articles(tmp_path: Path, suffix: str) -> None:
    path = _write(tmp_path / f"some{suffix}", [{"article": "eins\u2028zwei", "summary": "Möwe"}] * 2)
    path.write_bytes(path.read_text(encoding="utf-8").replace("\n", "\r\n").encode("utf-16"))
    assert load_articles(path, count=3).articles == (Article("eins\u2028zwei", "Möwe"),) * 2


def test_a_byte_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "some.jsonl").write_bytes(b'{"article": "M\xf6we", "summary": "s"}\n')
    with pytest.raises(PortError, match="byte 14"):
        load_articles(tmp_path / "some.jsonl", count=1)


@pytest.mark.parametrize(("article", "summary"), [("document", "summary"), ("text", "highlights")])
def test_columns_are_found_by_their_usual_names(tmp_path: Path, article: str, summary: str) -> None:
    path = _write(tmp_path / "some.jsonl", [{article: "long", summary: "short"}])
    assert load_articles(path, count=9).articles == (Article("long", "short"),)


def test_the_shipped_articles_are_there() -> None:
    found = load_articles(count=1000)
    assert len(found.articles) == 64
    assert all(len(each.article) > 3 * len(each.summary) / 2 for each in found.articles)


def test_a_file_is_not_remembered_when_it_changes(tmp_path: Path) -> None:
    path = _write(tmp_path / "some.jsonl", ROWS)
    assert load_articles(path, count=1).articles[0].summary == "Summary 0"
    _write(path, [{"article": "new", "summary": "newer"}])
    assert load_articles(path, count=1).articles == (Article("new", "newer"),)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"title": "x", "body": "y"}\n', "has the columns title, body, expected one of article, document"),
        ("b.jsonl", '{"article": "x", "gist": "y"}\n', "expected one of highlights, summary"),
        ("c.jsonl", '{"article": "x", "summary": "y"}\n{"article": "x", "summary": ""}\n', "row 2 of .* no text in"),
        ("d.jsonl", '{"article": "x", "summary": 3}\n', "row 1 of .* no text in the column `summary`"),
        ("e.jsonl", "{not json\n", "cannot be read as json"),
        ("f.jsonl", "", "is empty"),
        ("g.txt", "text\n", "of no known kind"),
        ("h.parquet", "no parquet\n", "cannot be read as parquet"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(PortError, match=message):
        load_articles(tmp_path / name, count=5)


def test_a_file_that_is_absent_is_not_looked_up_on_the_hub(tmp_path: Path) -> None:
    for name in (tmp_path / "absent.jsonl", "absent.jsonl", tmp_path):
        with pytest.raises(PortError, match="is not a file"):
            load_articles(name, count=5)


def test_a_hub_name_is_refused_offline_with_the_way_out() -> None:
    with pytest.raises(PortError, match="neither a file nor a dataset") as caught:
        load_articles("someone/some_news", count=5)
    assert "local file" in str(caught.value.hint)


def test_a_path_that_leads_nowhere_is_told() -> None:
    with pytest.raises(PortError, match="neither a file nor a dataset"):
        load_articles("a/b/c", count=1)

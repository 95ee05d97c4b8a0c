"""Articles with summaries: from the hub, from a local file, or the small set that ships with the package."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trtllm_port.errors import PortError
from trtllm_port.foundation.claims import scratch
from trtllm_port.foundation.text_files import read_text
from trtllm_port.huggingface.quiet import quiet_datasets
from trtllm_port.shipped_model import ARTICLES

__all__ = ["Article", "ArticleSet", "load_articles"]

READERS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}
ARTICLE_COLUMNS = ("article", "document", "text", "dialogue")
SUMMARY_COLUMNS = ("highlights", "summary")
SHIPPED = "the articles that ship with trtllm-port"


@dataclass(frozen=True)
class Article:
    """A text and the summary it should get."""

    article: str
    summary: str


@dataclass(frozen=True)
class ArticleSet:
    """Articles and where they came from."""

    name: str
    articles: tuple[Article, ...]


def load_articles(
    dataset: str | Path | None = None, *, count: int, config: str | None = None, split: str = "test"
) -> ArticleSet:
    """The first articles of a dataset.

    Args:
        dataset: a local JSON Lines, CSV or Parquet file, a hub name such as `abisee/cnn_dailymail`, or None for the
            shipped articles.
        count: how many at most.
        config: of a hub dataset that has several, such as `3.0.0`.
        split: of a hub dataset.

    Raises:
        PortError: the dataset cannot be read, is empty, or has no article and summary columns.
    """
    name = SHIPPED if dataset is None else str(dataset)
    path = ARTICLES if dataset is None else Path(dataset).expanduser()
    if path.is_file():
        table = _read_file(path)
    elif dataset is None or path.exists() or path.suffix in READERS or path.is_absolute() or name.startswith("."):
        raise PortError(
            f"`{path}` is not a file",
            hint=f"give a file that ends in {', '.join(READERS)}, or the name of a dataset on the hub",
        )
    else:
        table = _read_hub(name, config, split)
    article, summary = (_find_column(table.column_names, names, name) for names in (ARTICLE_COLUMNS, SUMMARY_COLUMNS))
    rows = table.select(range(min(count, len(table))))
    if not len(rows):
        raise PortError(f"`{name}` holds no articles")
    return ArticleSet(name, tuple(_article(row, number, article, summary, name) for number, row in enumerate(rows, 1)))


def _read_file(path: Path) -> Any:
    """A local file as a dataset in memory; nothing is left in a cache."""
    import datasets
    from datasets.exceptions import DatasetGenerationError

    reader = READERS.get(path.suffix)
    if reader is None:
        raise PortError(f"`{path}` is of no known kind", hint=f"give a file that ends in {', '.join(READERS)}")
    if path.stat().st_size == 0:
        raise PortError(f"`{path}` is empty")
    with scratch() as cache, quiet_datasets():
        try:
            source = path
            if reader != "parquet":  # the libraries below read UTF-8 alone
                source = cache / path.name
                source.write_text(read_text(path), encoding="utf-8", newline="\n")
            return datasets.load_dataset(
                reader, data_files=str(source), split="train", cache_dir=str(cache), keep_in_memory=True
            )
        except (DatasetGenerationError, ValueError, TypeError) as error:
            cause = error.__cause__ or error
            raise PortError(f"`{path}` cannot be read as {reader}: {_first_line(cause)}") from error


def _read_hub(name: str, config: str | None, split: str) -> Any:
    import datasets
    from datasets.exceptions import DatasetNotFoundError

    try:
        return datasets.load_dataset(name, config, split=split)
    except (DatasetNotFoundError, FileNotFoundError, ConnectionError) as error:
        raise PortError(
            f"`{name}` is neither a file nor a dataset that the hub gives: {_first_line(error)}",
            hint="offline, give a local file, or leave `--dataset` out for the articles that ship with the package",
        ) from error
    except (ValueError, RuntimeError) as error:
        raise PortError(
            f"the dataset `{name}` cannot be loaded: {_first_line(error)}",
            hint="check `--dataset-config` and `--split`; for CNN/DailyMail: "
            "`--dataset abisee/cnn_dailymail --dataset-config 3.0.0`",
        ) from error


def _find_column(present: Sequence[str], wanted: Sequence[str], name: str) -> str:
    found = next((column for column in wanted if column in present), None)
    if found is None:
        raise PortError(
            f"`{name}` has the columns {', '.join(present)}, expected one of {', '.join(wanted)}",
            hint="rename the column",
        )
    return found


def _article(row: dict[str, Any], number: int, article: str, summary: str, name: str) -> Article:
    for column in (article, summary):
        if not isinstance(row[column], str) or not row[column].strip():
            raise PortError(f"row {number} of `{name}` has no text in the column `{column}`")
    return Article(row[article], row[summary])


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]

"""ROUGE through `evaluate` and the local metric module, beside Google's scorer used directly."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from rouge_score import rouge_scorer

from trtllm_port.evaluation.rouge import ROUGE_KINDS, mean_rouge, rouge_per_sample

WRITTEN = ["The cats sat on the mat. It was red.", "Nothing of this", "One. Two! Three?"]
WANTED = ["A cat sat on the mat. It was blue.", "is in common", "Three? Two! One."]


def test_scores_are_those_of_googles_scorer() -> None:
    scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    found = rouge_per_sample(WRITTEN, WANTED)
    assert tuple(found) == ROUGE_KINDS
    for number, (text, reference) in enumerate(zip(WRITTEN, WANTED, strict=True)):
        for kind, score in scorer.score(reference, text).items():
            assert found[kind][number] == pytest.approx(100 * score.fmeasure)


def test_sentences_count_as_lines_for_rouge_lsum() -> None:
    found = rouge_per_sample(WRITTEN, WANTED)
    assert found["rougeLsum"][2] == 100.0  # the same sentences in another order
    assert found["rougeL"][2] < 50.0


def test_the_mean_is_taken_per_kind() -> None:
    assert mean_rouge({"rouge1": (10.0, 20.0), "rouge2": (0.0, 1.0)}) == {"rouge1": 15.0, "rouge2": 0.5}


@pytest.mark.slow
def test_it_works_at_once_in_several_processes_with_a_fresh_home_and_no_network(tmp_path: Path) -> None:
    code = "from trtllm_port.evaluation.rouge import rouge_per_sample as r; print(r(['a b'], ['a b'])['rouge1'])"
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "XDG_", "NLTK_"))}
    environment |= {"HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "http_proxy": "http://127.0.0.1:9"}
    processes = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [process.communicate(timeout=300)[0].strip() for process in processes] == ["(100.0,)", "(100.0,)"]
    assert not list(tmp_path.rglob("nltk_data"))

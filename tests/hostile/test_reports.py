"""A report that others wrote in has the elements of any other."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

from hostile_texts import acts, hostile

from trtllm_port.foundation.quoting import visible
from trtllm_port.verification.report.html import html_page
from trtllm_port.verification.report.junit import junit_xml


def _report(text: str) -> dict[str, Any]:
    """A report that has a text in every place that holds one."""
    numbers = {"rel_l2": 0.1, "ratio": 4.0, "floor": 0.1, "token_ratio": 1.0, "linf_ratio": 1.0, "cosine": 0.9}
    tap = {"verdict": "fail", "metrics": numbers, "logic": None, "own": None, "logic_own": None, "positions": []}
    taps = [{**tap, "name": f"model.layers.{i}.{text}", "class_name": text, "note": text} for i in range(2)]
    taps.append({**tap, "name": text, "class_name": text, "note": text})
    cause = {"cause": text, "status": text, "evidence": text, "place": text}
    found = {
        "module": text,
        "class_name": text,
        "phase": text,
        "tap": text,
        "note": text,
        "order": 1,
        "causes": [cause],
    }
    found |= {"rel_l2": 0.1, "floor": 0.1, "ratio": 1.0, "end_to_end": 1.0, "inherited": 1.0}
    gate = {
        "name": text,
        "phase": text,
        "verdict": "fail",
        "value": 1.0,
        "threshold": 1.0,
        "reason": text,
        "source": text,
    }
    subject = dict.fromkeys(("model", "architecture", "port", "port_digest", "dtype"), text)
    stage = {"name": text, "verdict": "fail", "seconds": 1.0, "detail": text}
    excerpt = {"side": "port", "path": text, "first_line": 1, "lines": [text, text], "marked": [1], "note": text}
    return {
        **{"kind": "verify", "verdict": "fail", "summary": text, "executor": text, "seconds": 1.0, "rouge": None},
        **{"loss": _loss(text), "repair": _repair(text)},
        "subject": {**subject, "random_weights": False, "seed": 0},
        "reference": {text: text},
        "stimulus": {"tokens": 2, "source": text, "decode_steps": 1, "batch_lengths": [], "limits": [text]},
        **{"first_divergence": text, "divergence": found, "divergences": [found, {**found, "module": text + "x"}]},
        **{"causes": [cause], "excerpts": [excerpt], "next_steps": [text], "stages": [stage], "gates": [gate]},
        **{"taps": taps, "ignored": {text: text}, "position_profile": {}, "versions": {text: text}},
        **{"not_exercised": [{"what": text, "reason": text}], "commands": [text]},
    }


def _loss(text: str) -> dict[str, Any]:
    number = {"value": 1.0, "low": 1.0, "high": 1.0}
    part = {"name": text, "kl": 1.0, "share": 1.0, "error": None}
    return {
        **{"text": text, "windows": 2, "window": 2, "word": text, "notes": [text], "weights": {text: 1.0}},
        "kl": dict.fromkeys(("mean", "low", "high", "median", "p99", "max"), 1.0),
        **{"top1": number, "perplexity": {"original": 1.0, "quantized": 1.0, "ratio": number}},
        "shares": {"by": "module", "tokens": 2, "together": 1.0, "sum": 1.0, "parts": [part]},
    }


def _repair(text: str) -> dict[str, Any]:
    points = [{"modules": n, "bytes": 10 + n, "kl": 1.0 / n, "top1": 0.5, "perplexity": 1.0} for n in (1, 2)]
    return {
        **{"bound": text, "measure": "kl", "limit": 0.6, "modules": [text], "returned": [text], "candidates": 2},
        **{"chosen": points[1], "plain_bytes": 20, "curve": points, "measured": 2, "command": text},
    }


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(name for name, _ in attrs)))
        self.texts += [value or "" for _, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        self.tags.append((f"/{tag}", ()))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def _tags(page: str) -> _Tags:
    parser = _Tags()
    parser.feed(page)
    parser.close()
    return parser


@hostile
def test_a_page_has_the_elements_of_any_other(text: str) -> None:
    if len(text) > 1000:
        text = text[:1000]
    page = html_page(_report(text))
    assert not acts(page)
    parser, benign = _tags(page), _tags(html_page(_report("a" if text else "")))
    code = ("code", "/code")  # backticks show where code begins
    assert [tag for tag in parser.tags if tag[0] not in code] == [tag for tag in benign.tags if tag[0] not in code]
    shown = visible(text)
    if "`" not in text and text.strip():
        assert any(shown in found for found in parser.texts)


@hostile
def test_a_junit_file_has_the_elements_of_any_other(text: str) -> None:
    written = junit_xml(_report(text))
    assert not acts(written)
    root = ElementTree.fromstring(written.encode())
    benign = ElementTree.fromstring(junit_xml(_report("a")).encode())
    assert [(e.tag, sorted(e.attrib)) for e in root.iter()] == [(e.tag, sorted(e.attrib)) for e in benign.iter()]
    (gate,) = [case for case in root.iter("testcase") if case.get("classname", "").endswith(".gates")]
    assert gate.get("name") == visible(f"{text}.{text}")

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest

from trtllm_port.verification.report.charts import LEFT, heat_map, log_chart
from trtllm_port.verification.report.html import html_page
from trtllm_port.verification.report.junit import junit_xml
from trtllm_port.verification.report.repair_chart import repair_chart, repair_rows

VOID = {"meta", "link", "circle", "line", "path", "br", "input"}


def tap(name: str, ratio: float | None = 1.0, verdict: str = "pass") -> dict[str, Any]:
    names = "rel_l2 max_abs cosine token_p50 token_p95 token_max max_reference norm_drift floor linf_ratio token_ratio"
    metrics = dict.fromkeys(names.split(), 0.01) | {"ratio": ratio, "cosine": 0.99}
    return {
        "name": name,
        "class_name": "Linear",
        "verdict": verdict,
        "note": "<b>note</b>",
        "metrics": metrics,
        "logic": metrics,
        "own": metrics,
        "logic_own": metrics,
        "positions": [1.0] * 32,
    }


def report(layers: int = 2, verdict: str = "fail", **changes: Any) -> dict[str, Any]:
    parts = ("input_layernorm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
    parts += ("self_attn", "post_attention_layernorm", "mlp.gate_proj", "mlp.up_proj", "mlp.act_fn", "mlp.down_proj")
    names = [f"model.layers.{i}{part}" for i in range(layers) for part in (*(f".{p}" for p in (*parts, "mlp")), "")]
    taps = [tap(each) for name in names for each in (f"{name}:input", name)]
    guilty = "model.layers.1.mlp"
    taps = [tap(t["name"], 1e6, "fail") if t["name"] == guilty and verdict == "fail" else t for t in taps]
    return {
        "kind": "verify",
        "verdict": verdict,
        "summary": f"the port first differs from Hugging Face at `{guilty}`",
        "subject": {
            "model": "<script>alert(1)</script>",
            "architecture": "LlamaForCausalLM",
            "port": "llama",
            "port_digest": "x",
            "dtype": "bfloat16",
            "random_weights": True,
            "seed": 3,
        },
        "executor": "reference executor",
        "reference": {"logic": "transformers"},
        "stimulus": {
            "tokens": 512,
            "source": "text",
            "decode_steps": 64,
            "batch_lengths": [3, 1],
            "batch_steps": 8,
            "limits": [],
        },
        "first_divergence": guilty,
        "divergence": {
            "module": guilty,
            "class_name": "LlamaMLP",
            "phase": "logic",
            "tap": guilty,
            "rel_l2": 0.5,
            "floor": 1e-7,
            "ratio": None,
            "end_to_end": 1.0,
            "inherited": 1.0,
            "order": 20,
            "note": "",
            "causes": [],
        },
        "divergences": [],
        "causes": [{"cause": "swap", "status": "likely", "evidence": "`up` < gate", "place": "`model.py` line 3"}],
        "excerpts": [
            {
                "side": side,
                "path": "models/llama/model.py",
                "first_line": 3,
                "lines": ["class LlamaMLP(Module):", "    def forward(self):", "        return self.act_fn(up < gate)"],
                "marked": [5],
                "note": "`act_fn` receives the first wrong value",
            }
            for side in ("port", "hugging_face")
        ],
        "next_steps": ["Compare `models/llama/model.py` line 5 with <Hugging Face>"],
        "rouge": {
            "articles": 16,
            "dataset": "the shipped articles",
            "output_len": 64,
            "rouge": {
                "rouge1": {
                    "mean": -0.3,
                    "low": -1.0,
                    "high": 0.4,
                    "allowed": -0.4,
                    "detectable": -1.4,
                    "articles_needed": 100,
                    "verdict": "cannot_tell",
                    "port": 39.7,
                    "hugging_face": 40.0,
                    "original": None,
                },
            },
            "length_ratio": 1.01,
            "equal_outputs": 0.5,
            "verdict": "cannot_tell",
            "reason": "ROUGE-1 cannot be told from more than a loss of 1%",
        },
        "loss": None,
        "repair": None,
        "stages": [{"name": "convert", "verdict": "pass", "seconds": 1.0, "detail": "done"}],
        "gates": [
            {
                "name": "prefill.kl",
                "phase": "logic",
                "verdict": each,
                "value": None,
                "threshold": 1.0,
                "reason": "because",
                "source": "somewhere",
            }
            for each in ("pass", "warn", "fail", "cannot_tell", "skipped")
        ],
        "taps": [tap("model.embed_tokens"), *taps, tap("lm_head"), tap("logits", None, "fail")],
        "ignored": {},
        "position_profile": {"logic": {"port": [1e-6] * 32, "floor": [1e-7] * 32}},
        "not_exercised": [{"what": "window", "reason": "too short"}],
        "versions": {"torch": "2"},
        "commands": ["trtllm-port verify x"],
        "seconds": 1.5,
    } | changes


class Balanced(HTMLParser):
    """Checks that what is opened is closed, and collects the visible text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        while self.open and self.open[-1] in ("tr", "td", "th", "li", "option", "p") and self.open[-1] != tag:
            self.open.pop()
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.mark.parametrize("verdict", ["pass", "fail", "cannot_tell"])
def test_the_page_is_whole_and_needs_nothing_else(verdict: str) -> None:
    page = html_page(report(verdict=verdict))
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    assert not re.search(r"src=|href=[^#]{2}|@import|url\(|https?://", page)


def test_the_first_screen_says_what_is_wrong_and_where() -> None:
    parser = Balanced()
    parser.feed(html_page(report()))
    text = " ".join("".join(parser.text[: parser.text.index("Modules")]).split())
    for said in ("Fail", "model.layers.1.mlp", "Suspected cause", "Swap", "model.py line 3", "reference executor"):
        assert said in text
    assert text.index("return self.act_fn(up < gate)") < text.index("Stages")
    assert "Compare models/llama/model.py line 5 with <Hugging Face>" in text


def test_the_lines_to_look_at_are_marked() -> None:
    page = html_page(report())
    assert '<span data-n="5" class="hit">        return self.act_fn(up &lt; gate)</span>' in page
    assert '<span data-n="3">class' in page


def test_without_a_guilty_module_the_first_screen_names_the_gates() -> None:
    parser = Balanced()
    changes = {"causes": [], "excerpts": [], "divergence": None, "first_divergence": None}
    parser.feed(html_page(report(verdict="cannot_tell", **changes)))
    text = " ".join("".join(parser.text[: parser.text.index("Stages")]).split())
    assert "Why it cannot be told prefill.kl (logic) because" in text


def test_the_numbers_behind_the_summaries_are_shown() -> None:
    parser = Balanced()
    parser.feed(html_page(report()))
    text = " ".join("".join(parser.text).split())
    assert "cannot tell ROUGE-1 cannot be told" in text
    for number in ("-0.30", "-1.00 to +0.40", "-0.40", "-1.40", "1.01", "50 %"):
        assert number in text


def test_tables_say_what_their_headers_are_for() -> None:
    assert not re.search(r"<th(?=[ >])(?![^>]*scope=)", html_page(report()))


def test_what_comes_from_outside_is_escaped() -> None:
    page = html_page(report())
    assert "<script>alert" not in page
    assert "<b>note" not in page
    assert "<code>up</code> &lt; gate" in page


def test_a_page_of_a_hundred_layers_is_below_two_megabytes() -> None:
    assert len(html_page(report(layers=100)).encode()) < 2_000_000


def test_a_report_without_taps_is_a_page_too() -> None:
    page = html_page(report(taps=[], divergence=None, first_divergence=None, position_profile={}, stages=[]))
    assert "Modules" not in page


def test_the_heat_map_has_a_row_per_layer_in_order() -> None:
    heat = heat_map(report(layers=11)["taps"])
    assert [name for name, _ in heat.rows] == [f"model.layers.{i}" for i in range(11)]
    assert heat.columns[-1] == "output"
    assert [cell.tap for cell in heat.others] == ["model.embed_tokens", "lm_head", "logits"]
    assert heat.rows[1][1][heat.columns.index("mlp")].shades.startswith("5")


def test_charts_skip_what_is_not_there() -> None:
    assert log_chart("t", "x", {"port": [], "floor": []}, 0) is None
    chart = log_chart("t", "x", {"port": [0.0, 1e-3, None, 1e-2]}, 3)
    assert chart is not None
    assert len(chart.curves[0].points) == 2


def test_junit_counts_failures_errors_and_skips() -> None:
    from xml.etree import ElementTree

    root = ElementTree.fromstring(junit_xml(report()).encode())
    gates = next(suite for suite in root if suite.get("name", "").endswith("gates"))
    assert [gates.get(name) for name in ("tests", "failures", "errors", "skipped")] == ["5", "1", "1", "1"]
    taps = next(suite for suite in root if suite.get("name", "").endswith("taps"))
    assert taps.get("failures") == "2"


def test_every_verdict_is_counted_as_what_it_is() -> None:
    """What was skipped neither passes nor fails, and what warns passes."""
    from xml.etree import ElementTree

    verdicts = ["pass"] * 4 + ["skipped"] * 3 + ["warn"] * 2 + ["fail"]
    gates = [report()["gates"][0] | {"name": f"g{i}", "verdict": verdict} for i, verdict in enumerate(verdicts)]
    given = report() | {"gates": gates, "taps": [tap("a"), tap("b", 1.7, "warn")]}
    parser = Balanced()
    parser.feed(html_page(given))
    text = " ".join("".join(parser.text).split())
    assert "Gates (10: 4 pass, 3 skipped, 2 warn, 1 fail)" in text
    assert "Taps (2: 1 pass, 1 warn)" in text
    root = ElementTree.fromstring(junit_xml(given).encode())
    suite = next(suite for suite in root if suite.get("name", "").endswith("gates"))
    counts = {each.get("name"): each.get("value") for each in suite.iter("property")}
    assert counts == {
        f"verdict.{name}": str(verdicts.count(name)) for name in (*dict.fromkeys(verdicts), "cannot_tell")
    }


def test_one_mistake_in_many_layers_is_said_once() -> None:
    given = report()
    names = [f"model.layers.{i}.mlp" for i in range(1, 8)] + ["model.norm"]
    found = [given["divergence"] | {"module": name, "causes": [], "end_to_end": 1.0} for name in names]
    parser = Balanced()
    parser.feed(html_page(given | {"divergences": found}))
    text = " ".join("".join(parser.text).split())
    assert "the same in model.layers.2.mlp, model.layers.3.mlp, model.layers.4.mlp and 3 more" in text
    assert text.count("wrong by itself, too") == 1


def loss(**changes: Any) -> dict[str, Any]:
    number = {"value": 0.95, "low": None, "high": None}
    parts = [{"name": f"model.layers.{i}", "kl": 0.1, "share": 0.08, "error": None} for i in range(12)]
    return {
        **{"text": "`text.txt`", "windows": 1, "window": 9, "word": "small", "weights": {}, "notes": ["keys <differ>"]},
        "kl": {"mean": 0.0123, "low": None, "high": None, "median": 0.01, "p99": 0.1, "max": None},
        **{"top1": number, "perplexity": {"original": 5.0, "quantized": None, "ratio": number}},
        "shares": {"by": "layer", "tokens": 9, "together": 0.1, "sum": 0.2, "parts": parts},
    } | changes


def test_a_loss_is_shown_with_what_is_missing() -> None:
    parser = Balanced()
    parser.feed(html_page(report(loss=loss())))
    assert parser.open == []
    text = " ".join(" ".join(parser.text).split())
    assert "What quantization cost: small" in text
    assert "each layer quantized alone, on 9 tokens; together they cost 0.1, the parts add up to 0.2" in text
    assert "model.layers.9" in text
    assert "model.layers.10" not in text
    assert "and 2 more, in" in text
    assert "Keys <differ>" in text
    assert "quantized alone" not in html_page(report(loss=loss(shares=None)))
    assert "What quantization cost" not in html_page(report())


def repair(**changes: Any) -> dict[str, Any]:
    def point(modules: int, kl: float | None) -> dict[str, Any]:
        return {"modules": modules, "bytes": 10**6 * (modules + 1), "kl": kl, "top1": 0.9, "perplexity": 1.02}

    return {
        **{"bound": "kl<0.01", "measure": "kl", "limit": 0.01, "modules": ["model.<a>"], "returned": ["model.b"]},
        **{"candidates": 9, "chosen": point(1, 0.008), "plain_bytes": 10**7, "measured": 5, "command": "convert & so"},
        "curve": [point(0, 0.2), point(1, None), point(2, 0.009)],
    } | changes


def test_a_repair_is_shown_with_its_curve() -> None:
    parser = Balanced()
    parser.feed(html_page(report(repair=repair())))
    assert parser.open == []
    text = " ".join(" ".join(parser.text).split())
    assert "Repair for kl<0.01: 1 of 9 modules stay unquantized" in text
    assert "model.<a>" in text
    assert "Chosen first, and not needed: model.b" in text
    assert "convert & so" in text
    assert "Size against loss: mean KL" in text
    rows = [what for what, _ in repair_rows(repair())]
    assert rows == ["none", "the first 1", "chosen", "the first 2"]
    met = repair(modules=[], returned=[], chosen=repair()["curve"][0], curve=repair()["curve"][:1])
    assert "The bound is met with every module quantized." in html_page(report(repair=met))


def test_the_curve_of_a_repair_is_the_distance_to_no_loss() -> None:
    chart = repair_chart(repair())
    assert chart is not None
    line, limit, chosen = chart.curves
    assert [label for *_, label in line.points] == ["1: 0.2", "3: 0.009"]
    assert limit.path.startswith(f"M{float(LEFT)} ")
    assert limit.points == ()
    assert len(chosen.points) == 1
    top1 = repair_chart(repair(measure="top1", limit=0.95))
    assert top1 is not None
    assert {label.split(": ")[1] for *_, label in top1.curves[0].points} == {"0.1"}
    better = [{**point, "perplexity": 0.98} for point in repair()["curve"]]
    fine = repair_chart(repair(measure="perplexity", limit=1.01, curve=better, chosen=better[1]))
    assert fine is not None
    assert fine.curves[0].points == ()  # less than no loss has no place on a logarithmic axis


def test_summaries_of_an_original_are_a_column() -> None:
    with_original = report()
    with_original["rouge"]["rouge"]["rouge1"]["original"] = 41.25
    assert "41.25" in html_page(with_original)
    assert '<th scope="col" class="n">original</th>' not in html_page(report())

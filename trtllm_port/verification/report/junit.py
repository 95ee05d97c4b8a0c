"""JUnit XML: one test case per gate and per tap, for continuous integration."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

from trtllm_port.foundation.quoting import visible
from trtllm_port.verification.judge.verdict import counted


def junit_xml(report: dict[str, Any]) -> str:
    """Render a report's JSON form as JUnit XML.

    A failing verdict becomes a failure, `cannot_tell` an error, `skipped` a skip; warnings go to the case's output.
    """
    suites = ElementTree.Element("testsuites", name=f"trtllm-port {report['kind']}")
    model = visible(f"{report['subject']['port']}.{report['subject']['dtype']}")
    gates = [(f"{gate['phase']}.{gate['name']}", gate["verdict"], gate["reason"]) for gate in report["gates"]]
    taps = [(tap["name"], tap["verdict"], _tap_text(tap)) for tap in report["taps"]]
    stages = [(stage["name"], stage["verdict"], stage["detail"]) for stage in report["stages"]]
    for name, found in (("stages", stages), ("gates", gates), ("taps", taps)):
        cases = [(visible(case), verdict, visible(text)) for case, verdict, text in found]
        if cases:
            _suite(suites, f"{model}.{name}", cases)
    ElementTree.indent(suites)
    return ElementTree.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


def _suite(suites: ElementTree.Element, name: str, cases: list[tuple[str, str, str]]) -> None:
    verdicts = [verdict for _, verdict, _ in cases]
    suite = ElementTree.SubElement(
        suites,
        "testsuite",
        name=name,
        tests=str(len(cases)),
        failures=str(verdicts.count("fail")),
        errors=str(verdicts.count("cannot_tell")),
        skipped=str(verdicts.count("skipped")),
    )
    properties = ElementTree.SubElement(suite, "properties")
    for verdict, count in counted(verdicts).items():  # warnings have no attribute of their own
        ElementTree.SubElement(properties, "property", name=f"verdict.{verdict}", value=str(count))
    for case, verdict, text in cases:
        element = ElementTree.SubElement(suite, "testcase", classname=name, name=case)
        kind = {"fail": "failure", "cannot_tell": "error", "skipped": "skipped"}.get(verdict)
        if kind is not None:
            ElementTree.SubElement(element, kind, message=text)
        elif verdict == "warn":
            ElementTree.SubElement(element, "system-out").text = f"warning: {text}"


def _tap_text(tap: dict[str, Any]) -> str:
    numbers = tap["metrics"] or tap["logic"]
    if numbers is None:
        return str(tap["note"])
    said = f"relative error {numbers['rel_l2']}, {numbers['ratio']} times Hugging Face's own"
    return f"{said} {tap['note']}".strip()

"""Writes a report directory: JSON first; the page and the JUnit file are renderings of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from trtllm_port.foundation.atomic_files import write_json, write_text
from trtllm_port.verification.report.html import html_page
from trtllm_port.verification.report.junit import junit_xml
from trtllm_port.verification.report.report import JUNIT_XML, REPORT_HTML, REPORT_JSON, Report, plain


def write_report(report: Report, report_dir: Path) -> Report:
    """Write `report.json`, `report.html`, `junit.xml` and one file per stage result; each is complete or absent.

    Returns:
        The report, with the directory in it.

    Raises:
        DiskSpaceError: the disk is full.
    """
    content = report.to_dict()
    write_json(report_dir / REPORT_JSON, content)
    for name, result in report.stage_results.items():
        write_json(report_dir / f"{name}.json", plain(result))
    write_text(report_dir / REPORT_HTML, html_page(content))
    write_text(report_dir / JUNIT_XML, junit_xml(content))
    return replace(report, report_dir=report_dir)

"""The doctor's verdicts, on this machine and on made-up ones."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest

from trtllm_port import doctor
from trtllm_port.doctor import Check, DoctorReport
from trtllm_port.foundation.requirements import TESTED_TRANSFORMERS
from trtllm_port.runtime.engines.devices import Gpu, Machine

H200 = Machine(
    gpu=Gpu("NVIDIA H200", "9.0", 141 << 30),
    flavours={"tensorrt_rtx": "1.7.1"},
    capabilities={"tensorrt_rtx": ("8.9",)},
    torch_has_cuda=True,
)


def test_this_machine_lacks_nothing(tmp_path: Path) -> None:
    report = doctor.examine(tmp_path)
    assert not report.lacks
    assert report.to_dict()["verdict"] == "ok"
    assert {"Python", "torch", "transformers", "tensorrt_rtx", "GPU", "disk", "hub"} <= {c.name for c in report.checks}


def test_an_old_python_lacks() -> None:
    assert doctor.check_python((3, 10, 1)).status == "lacks"


def test_no_tensorrt_library_lacks() -> None:
    (check,) = doctor.check_libraries(Machine(gpu=None))
    assert check.status == "lacks"
    assert "tensorrt-rtx-cu13" in check.hint


def test_a_missing_package_names_the_version_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    for check in (doctor.check_package("torch"), doctor.check_transformers_release()):
        assert check.status == "lacks"
        assert f"`pip install '{check.name}>=" in check.hint
    assert f">={TESTED_TRANSFORMERS[0]}," in doctor.check_transformers_release().hint


def test_another_version_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda _name: "0.1.0")
    monkeypatch.setattr("trtllm_port.doctor.required", lambda _name: ">=4")
    assert doctor.check_package("datasets").status == "warning"


@pytest.mark.parametrize(
    ("version", "status"), [("4.57.6", "lacks"), ("5.19.0", "warning"), ("5.20.2", "ok"), ("5.99.0", "warning")]
)
def test_a_release_of_transformers_that_is_not_tested_is_told(
    version: str, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda _name: version)
    check = doctor.check_transformers_release()
    assert check.status == status
    assert version in check.found
    assert ("pip install 'transformers>=5.20,<5.25'" in check.hint) == (status != "ok")


def test_an_unsupported_gpu_is_named_with_the_library() -> None:
    check = doctor.check_gpu(H200)
    assert check.status == "warning"
    assert "NVIDIA H200" in check.found
    assert "tensorrt_rtx 1.7.1 does not support" in check.hint
    assert doctor.check_executor(H200).found == "the reference executor on CUDA"


def test_little_disk_is_a_warning(tmp_path: Path) -> None:
    assert doctor.check_disk(tmp_path, 1 << 30).status == "warning"


def test_offline_is_told() -> None:
    assert "offline" in doctor.check_hub({"HF_HUB_OFFLINE": "1"}).found
    assert "offline" not in doctor.check_hub({}).found


def test_one_lack_decides() -> None:
    assert DoctorReport((Check("a", "ok", ""), Check("b", "lacks", ""))).lacks

from __future__ import annotations

import torch
from torch import Tensor, nn

from trtllm_port.verification.sides.hugging_face import HuggingFaceRunner
from trtllm_port.verification.sides.recording import record
from trtllm_port.verification.stimulus.stimulus import Stimulus
from trtllm_port.verification.taps.rotary_tables import match_table


class Adder(nn.Module):
    def forward(self, hidden_states: Tensor) -> Tensor:
        return hidden_states.add_(1.0)  # writes into its input, which is the embedding's output


class Output:
    def __init__(self, logits: Tensor) -> None:
        self.logits = logits


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(8, 4)
        self.adder = Adder()
        self.pair = nn.Identity()

    def forward(self, input_ids: Tensor, use_cache: bool) -> Output:
        hidden_states = self.adder(hidden_states=self.embed(input_ids) * 1.0)
        self.pair(("no tensor", {"first": hidden_states}))
        return Output(hidden_states)


STIMULUS = Stimulus(ids=(1, 2, 3), source="", decode_steps=0, rows=((4, 5), (6, 7)), row_steps=1)


def test_tensors_that_are_written_into_later_keep_their_first_value() -> None:
    model = Model()
    recording = record(HuggingFaceRunner(model), STIMULUS)
    embedded = model.embed.weight[[1, 2, 3]].detach()
    assert torch.equal(recording.taps["adder:input"][0], embedded)
    assert torch.equal(recording.taps["adder"][0], embedded + 1)


def test_taps_come_in_the_order_of_execution() -> None:
    recording = record(HuggingFaceRunner(Model()), STIMULUS)
    assert recording.order == ("embed:input", "embed", "adder:input", "adder", "logits")


def test_rows_are_run_alone() -> None:
    model = Model()
    recording = record(HuggingFaceRunner(model), STIMULUS)
    assert torch.equal(recording.rows[1], model.embed.weight[[6, 7]].detach() + 1)


def test_rotary_tables_that_hold_every_angle_twice() -> None:
    once = torch.randn(1, 5, 4)
    assert torch.equal(match_table(torch.cat((once, once), -1), once), once)
    assert torch.equal(match_table(once.repeat_interleave(2, -1), once), once)
    assert torch.equal(match_table(once, once), once)
    assert match_table(torch.randn(1, 5, 8), once) is None
    assert match_table(torch.randn(1, 6, 8), once) is None

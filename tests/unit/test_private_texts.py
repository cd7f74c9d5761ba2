"""Private texts go through the frozen encoder once a process, and only for equal questions."""

import torch

from fedrec.population.texts import _Asked, prepared


class Counting:
    """An adapter that notes what it is asked."""

    def __init__(self, hash="a", blocks=0):
        self.encoder, self.blocks, self.asked = self, blocks, []
        self.hash = hash

    def prepare(self, texts):
        self.asked.append(texts)
        return torch.full((len(texts), 2), float(len(self.asked)))


def test_the_same_texts_are_prepared_once_whoever_trains_on_top():
    first, second = Counting(), Counting()
    answers = [prepared(adapter, "cpu", ("tea", "cocoa")) for adapter in (first, second, first)]
    assert (first.asked, second.asked) == ([("tea", "cocoa")], [])
    assert all(answer is answers[0] for answer in answers)


def test_other_texts_encoders_depths_and_devices_are_other_questions():
    prepared(Counting(), "cpu", ("tea",))
    for adapter, device, texts in (
        (Counting(), "cpu", ("cocoa",)), (Counting("b"), "cpu", ("cocoa",)),
        (Counting("b", 1), "cpu", ("cocoa",)), (Counting("b", 1), "cuda", ("cocoa",)),
    ):  # fmt: skip
        prepared(adapter, device, texts)
        assert adapter.asked == [texts]


def test_nothing_of_a_text_is_in_a_message():
    assert "tea" not in repr(_Asked("a", 0, "cpu", ("tea",), Counting()))

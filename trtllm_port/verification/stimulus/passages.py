"""Built-in text, written for this project: long and varied enough to fill 512 tokens of any tokenizer.

Repetition would hide position errors, so names, numbers, punctuation and topics keep changing.
"""

from __future__ import annotations

PROMPTS = (
    "Once upon a time, there was a little girl named Lily.",
    "The harbour was quiet when the first boat came back.",
    "To make good bread you need flour, water, salt and",
    "One day, Tom found a small box under the old tree. He",
    "In 1913 the museum bought three paintings, and",
)

PASSAGE = """\
Once upon a time a lighthouse keeper called Maren lived on an island that no map showed twice in the same place.
Every morning at 5:40 she climbed the 214 steps, wound the clockwork, and wrote one line in a blue book: the
wind, the height of the waves, and whatever the gulls had stolen. "Fog from the north-east," she wrote on the
third of March, "two ships, one loaf of bread." Her neighbour Osei did not believe in gulls. He believed in
arithmetic. If a bird weighs 1.2 kg and a loaf 0.8, he said, then the bird must drop it within 300 metres;
therefore the bread was still on the island.

They searched for it together, first along the beach, where glass floats and orange rope lay tangled in the
weed, then in the ruined chapel. Instead of bread they found a door. Behind the door a staircase went down, cut
into the rock by people who had much shorter legs, and at the bottom stood a machine: brass wheels, a paper
roll, forty little hammers. Somebody had oiled it last week! Osei touched a lever. The hammers rose, fell, rose
again, and printed, letter by letter, a recipe for soup: onions, barley, three bay leaves; boil slowly, do not
stir.

How does a forecast work? Warm air rises over the land, cold air flows in from the sea, and the difference in
pressure, measured in hectopascals, drives the wind. A good observer notes the cloud base, the dew point and the
colour of the evening sky; a better one notes how often she was wrong. Maren was wrong on 61 of 365 days, mostly
in autumn. The machine, as they learned from its long paper roll, had been wrong only twice since 1887, and both
times it had apologised.

Years later a young engineer arrived with a laptop, two suitcases and a letter from the ministry. The letter
said: replace everything. She looked at the brass wheels for a long while. Then she typed `print("hello")`,
laughed, and asked whether there was any soup left. That winter the three of them rebuilt the paper feed,
replaced eleven springs, and translated the oldest part of the roll, which turned out to be a poem about
patience: It rains, it stops; the sea keeps its own books; whoever counts the waves will lose count, and begin
again, and be content.
"""

"""Does it learn? A small language model trained with RACE, with exact angular and with softmax attention."""

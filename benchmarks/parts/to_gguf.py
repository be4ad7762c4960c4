"""Converts a model of `models.py` with llama.cpp's own script, which must be on Python's path.

    PYTHONPATH=SOURCE:SOURCE/gguf-py python to_gguf.py MODEL --outtype bf16 --outfile TARGET

The script knows how a tokenizer splits text only by a checksum over a known vocabulary, and ours is
random: it is told here. Digits one by one, then GPT-2's pattern, is what it calls "smollm".
"""

from conversion.base import TextModel
from convert_hf_to_gguf import main

if __name__ == "__main__":
    TextModel.get_vocab_base_pre = lambda self, tokenizer: "smollm"
    main()

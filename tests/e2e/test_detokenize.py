"""`/detokenize` gives back the text that `/tokenize` took, on the built-in model."""

import pytest
from raw_http import call

TEXTS = ["What is the capital of France?", " two  spaces\n", "\u00fc\u2028\U0001f600", "<|im_end|>"]


@pytest.mark.parametrize("text", TEXTS)
async def test_ids_give_back_the_text_they_came_from(server, text):
    ids = (await call(server.url, "POST", "/tokenize", {"prompt": text})).json()
    answer = await call(server.url, "POST", "/detokenize", {"tokens": ids})
    assert answer.json() == {"prompt": text}


async def test_an_id_outside_the_vocabulary_is_refused(server):
    answer = await call(server.url, "POST", "/detokenize", {"tokens": [1, 10**7]})
    assert answer.status == 422
    assert "`tokens` must hold token ids" in answer.json()["error"]

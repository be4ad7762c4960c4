"""The named API of the Gradio app, by Gradio's Python client: every endpoint, value by value."""

import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from gradio_app import client_of, demo
from occupancy import occupied
from openai import OpenAI
from PIL import Image
from raw_http import call
from served import free_port, serve
from setup_peers import JS, NPM_PACKAGES

from server.demo.chart import SIZE

PROMPT = "How do you make cheese?"
ENDPOINTS = {
    *("/complete", "/chat", "/side_by_side", "/as_you_type", "/picture"),
    *("/count", "/fake_diffusion"),
}


@pytest.fixture(scope="module")
def client(started_demo):
    return client_of(started_demo.url)


@pytest.fixture(scope="module")
def crowded_client(started_crowded):
    with demo(started_crowded.url) as app:
        yield client_of(app.url)


def values(client, *arguments, api_name):
    return list(client.submit(*arguments, api_name=api_name))


def assert_grows(texts):
    assert len(set(texts)) > 5
    assert all(after.startswith(before) for before, after in pairwise(texts))


async def generated(server, prompt, num_tokens):
    body = {"inputs": prompt, "parameters": {"max_new_tokens": num_tokens}}
    return (await call(server.url, "POST", "/generate", body)).json()["generated_text"]


def test_these_are_the_endpoints(client):
    assert client.view_api(return_format="dict")["named_endpoints"].keys() == ENDPOINTS


async def test_a_completion_grows_to_what_the_server_says(server, client):
    steps = values(client, PROMPT, 30, api_name="/complete")
    assert_grows([text for text, _ in steps])
    text, numbers = steps[-1]
    assert text == (await generated(server, PROMPT, 30)).lstrip()
    assert "30 tokens" in numbers


def test_a_completion_is_sampled_where_there_is_a_temperature(server, client):
    """The prompt is no word, so that the model has no favourite way to go on."""
    said = {values(client, "zz q", 30, 1.5, 0.9, api_name="/complete")[-1][0] for _ in range(4)}
    assert len(said) > 1


def test_a_chat_grows_to_what_the_server_says(server, client):
    texts = values(client, PROMPT, 40, api_name="/chat")
    assert_grows(texts)
    with OpenAI(base_url=f"{server.url}/v1", api_key="-") as openai:
        asked = [{"role": "user", "content": PROMPT}]
        answer = openai.chat.completions.create(
            model="tgi", messages=asked, max_tokens=40, temperature=0
        )
    assert texts[-1] == answer.choices[0].message.content


def test_side_by_side_the_streamed_text_is_there_before_the_other(server, client):
    steps = values(client, PROMPT, 40, api_name="/side_by_side")
    assert_grows([streamed for streamed, _, _ in steps])
    early = [streamed for streamed, whole, _ in steps if not whole]
    assert len(set(early)) > 5
    streamed, whole, times = steps[-1]
    assert streamed == whole
    assert "times sooner" in times


def test_as_you_type_the_text_goes_on(server, client):
    assert_grows([text for text, _ in values(client, PROMPT, 20, api_name="/as_you_type")])
    assert values(client, " ", 20, api_name="/as_you_type") == [("", "Write something.")]


def test_as_you_type_the_longer_text_is_taken_from_the_cache(server, client):
    text = "Each keystroke sends the whole text again. " * 6
    for longer in (text, text + "And"):
        *_, (_, numbers) = values(client, longer, 5, api_name="/as_you_type")
    assert int(re.search(r"(\d+) prompt tokens from the cache", numbers)[1]) >= 32


def test_a_picture_is_refined_with_each_token(server, client):
    steps = values(client, "Once upon a time", 6, 1.0, api_name="/picture")
    pictures = [Image.open(path) for path, _ in steps]
    assert {picture.size for picture in pictures} == {SIZE}
    assert len({picture.tobytes() for picture in pictures}) == 7
    texts = [text for _, text in steps]
    assert len(set(texts)) == 7
    assert all(after.startswith(before) for before, after in pairwise(texts))


def test_gradios_counter_counts(client):
    job = client.submit(3, api_name="/count")
    assert list(job) == ["0", "1", "2"]
    assert job.outputs() == ["0", "1", "2"]


def test_gradios_diffusion_gives_noise_and_then_the_picture(client):
    pictures = [Image.open(path) for path in values(client, 2, api_name="/fake_diffusion")]
    assert [picture.size for picture in pictures] == [(600, 600), (600, 600), (1000, 1000)]
    first, second, last = pictures
    assert first.tobytes() != second.tobytes()
    assert len(first.getcolors(1 << 20) or ()) > 1000
    (_, red_green_blue) = max(last.getcolors(1 << 20))
    assert [abs(a - b) < 8 for a, b in zip(red_green_blue, (255, 124, 0), strict=True)] == [
        True
    ] * 3


# -- the examples of the README


SECTION = re.search(
    r"^## The Gradio app$.*?^## ",
    (Path(__file__).parents[2] / "server/README.md").read_text(),
    re.MULTILINE | re.DOTALL,
)[0]
EXAMPLES = dict(re.findall(r"^```(\w+)\n(.*?)^```", SECTION, re.MULTILINE | re.DOTALL))
RUN = {"python": [sys.executable, "-c"], "js": ["node", "--input-type=module", "-e"]}


@pytest.mark.parametrize(
    "language", ["python", pytest.param("js", marks=pytest.mark.needs("node", NPM_PACKAGES))]
)
def test_the_readmes_example_prints_growing_text(server, started_demo, language):
    code = EXAMPLES[language].replace("http://localhost:7860", started_demo.url)
    done = subprocess.run(
        [*RUN[language], code], cwd=JS, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if "cheese" in line]
    assert len(set(lines)) > 5


def test_the_readme_names_every_endpoint():
    assert set(re.findall(r"^\| `(/\w+)`", SECTION, re.MULTILINE)) == ENDPOINTS


# -- what goes wrong is told


CALLS = [
    (PROMPT, 40, "/complete"),
    (PROMPT, 40, "/chat"),
    (PROMPT, 40, "/side_by_side"),
    (PROMPT, 40, "/as_you_type"),
    (PROMPT, 4, "/picture"),
]
every_call = pytest.mark.parametrize("asked", CALLS, ids=lambda asked: asked[-1])


def failure(client, asked) -> str:
    *arguments, api_name = asked
    with pytest.raises(Exception, match=r"\w") as caught:
        client.predict(*arguments, api_name=api_name)
    return str(caught.value)


@every_call
def test_a_full_server_is_told_with_the_time_to_wait(full, crowded_client, asked):
    said = failure(crowded_client, asked)
    assert said.startswith("The server is full. Try again in ")
    seconds = int(said.split()[-2])
    assert 1 <= seconds <= 60


@every_call
def test_what_the_server_refuses_is_told_in_its_own_words(server, client, asked):
    said = failure(client, ("word " * 9000, *asked[1:]))
    assert said.startswith("The server did not take it: ")
    assert "tokens" in said


def test_a_missing_key_is_told_with_where_to_put_it(keyed):
    with demo(keyed.url, env={"MILLRACE_API_KEY": ""}) as app:
        client = client_of(app.url)
        for asked in CALLS:
            assert "set MILLRACE_API_KEY" in failure(client, asked)


def test_a_server_that_goes_in_mid_stream_is_told_and_the_text_so_far_stays():
    port = free_port()
    with (
        serve("--max-batch-total-tokens", "8192", "--num-threads", "1", port=port) as server,
        demo(server.url) as app,
        occupied(server, 40),  # so that a step takes long
    ):
        client = client_of(app.url)
        job = client.submit("Once upon a time", 400, 2.0, api_name="/complete")
        assert next(text for text, _ in job if text)
        server.process.kill()
        with pytest.raises(Exception, match="The server broke off"):
            job.result(timeout=60)
        assert job.outputs()[-1][0]
        assert f"No server answers at {server.url}" in failure(client, CALLS[0])

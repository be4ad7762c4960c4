"""The page's playground as a person uses it; what tests of the page share."""

import json

from playwright.async_api import expect


def parameter(page, name):
    return page.locator(f"[name=prompt-{name}]")


async def opened(details):
    await details.evaluate("(element) => { element.open = true }")


async def fill(page, prompt, **parameters):
    """Fill in a prompt and parameters; all of the latter are shown."""
    await page.locator("#prompt").fill(prompt)
    await opened(page.locator("#prompt-parameters details"))
    for name, value in parameters.items():
        field = parameter(page, name)
        is_choice = await field.evaluate("(element) => element.tagName === 'SELECT'")
        await (field.select_option(value) if is_choice else field.fill(value))


async def generate(page):
    await page.get_by_role("button", name="Generate").click()


async def endless(page):
    """Begin an answer that does not end by itself, and wait for some of it."""
    await fill(page, "And so", max_new_tokens="4000", ignore_eos="yes")
    await generate(page)
    await expect(page.locator(".token").nth(5)).to_be_visible()


async def ended(page):
    await expect(page.locator("#prompt-answer [data-name=Ended]")).to_be_visible()


async def chat(page, text):
    """Say something in a chat and wait for the answer."""
    answers = page.locator(".turn.assistant [data-name=Ended]")
    count = await answers.count()
    await page.get_by_label("Your message").fill(text)
    await page.get_by_role("button", name="Send").click()
    await expect(answers).to_have_count(count + 1)


async def text_of(place):
    """Read an answer without what stands for special tokens."""
    return await place.evaluate(
        "(place) => [...place.querySelectorAll('.tokens .token:not(.special)')]"
        ".map((token) => token.textContent).join('')"
    )


def bodies_of(page):
    """Collect the bodies of generations, as they are sent."""
    bodies = []

    def sent(request):
        if request.url.endswith(("/generate_stream", "/v1/chat/completions")):
            bodies.append(json.loads(request.post_data))

    page.on("request", sent)
    return bodies

// A request as code to copy: exact and runnable. A key is never in it, only the variable API_KEY.

const HUB = new Set([
  "do_sample", "frequency_penalty", "max_new_tokens", "repetition_penalty", "return_full_text", "seed",
  "stop", "temperature", "top_k", "top_n_tokens", "top_p", "truncate", "typical_p", "watermark", "details",
]);
const OPENAI = new Set([
  "model", "messages", "stream", "stream_options", "max_tokens", "temperature", "top_p", "seed", "stop",
  "frequency_penalty", "presence_penalty", "logit_bias", "logprobs", "top_logprobs",
]);

/** What must be there for each language. */
export const NEEDS = {
  curl: () => "For a POSIX shell.",
  python: (request) => (isChat(request) ? "pip install openai"
    : isForHub(request) ? "pip install huggingface_hub" : "The standard library is enough."),
  javascript: () => "For Node 18 and newer, as a module (.mjs); no package is needed.",
};

export const SNIPPETS = { curl, python, javascript };

function curl(request, origin, hasKey) {
  const lines = [
    `curl -N ${shell(origin + request.path)}`,
    "-H 'Content-Type: application/json'",
    ...(hasKey ? ['-H "Authorization: Bearer $API_KEY"'] : []),
    `-d ${shell(JSON.stringify(request.body))}`,
  ];
  return lines.join(" \\\n  ");
}

function python(request, origin, hasKey) {
  if (isChat(request)) return pythonChat(request, origin, hasKey);
  return isForHub(request) ? pythonHub(request, origin, hasKey) : pythonPlain(request, origin, hasKey);
}

function pythonHub({ body }, origin, hasKey) {
  const key = hasKey ? ', token=os.environ["API_KEY"]' : "";
  const values = { ...body.parameters, stream: true };
  return `${imports(hasKey)}from huggingface_hub import InferenceClient

client = InferenceClient(base_url=${literal(origin)}${key})
stream = client.text_generation(
    ${literal(body.inputs)},
${keywords(values)}
)
for event in stream:
    if not event.token.special:
        print(event.token.text, end="", flush=True)
print()
`;
}

function pythonChat({ body }, origin, hasKey) {
  const key = hasKey ? 'os.environ["API_KEY"]' : '"none"';
  const entries = Object.entries(body);
  const known = Object.fromEntries(entries.filter(([name]) => OPENAI.has(name)));
  const extra = Object.fromEntries(entries.filter(([name]) => !OPENAI.has(name)));
  const values = Object.keys(extra).length ? { ...known, extra_body: extra } : known;
  return `${imports(hasKey)}from openai import OpenAI

client = OpenAI(base_url=${literal(`${origin}/v1`)}, api_key=${key})
stream = client.chat.completions.create(
${keywords(values)}
)
for chunk in stream:
    if chunk.choices:
        print(chunk.choices[0].delta.content or "", end="", flush=True)
print()
`;
}

// For what the hub's client has no name for.
function pythonPlain({ path, body }, origin, hasKey) {
  const key = hasKey ? ', "Authorization": f"Bearer {os.environ[\'API_KEY\']}"' : "";
  return `import json
${hasKey ? "import os\n" : ""}from urllib.request import Request, urlopen

body = {
    "inputs": ${literal(body.inputs)},
    "parameters": ${literal(body.parameters)},
}
headers = {"Content-Type": "application/json"${key}}
request = Request(${literal(origin + path)}, json.dumps(body).encode(), headers)
with urlopen(request) as lines:
    for line in lines:
        if line.startswith(b"data: "):
            token = json.loads(line[6:])["token"]
            print("" if token["special"] else token["text"], end="", flush=True)
print()
`;
}

function javascript(request, origin, hasKey) {
  const key = hasKey ? ",\n    Authorization: `Bearer ${process.env.API_KEY}`" : "";
  const text = isChat(request) ? 'data.choices[0]?.delta.content ?? ""' : 'data.token.special ? "" : data.token.text';
  return `const response = await fetch(${JSON.stringify(origin + request.path)}, {
  method: "POST",
  headers: {
    "Content-Type": "application/json"${key},
  },
  body: ${javascriptBody(request.body)},
});
if (!response.ok) throw new Error(await response.text());
let rest = "";
for await (const part of response.body.pipeThrough(new TextDecoderStream())) {
  const events = (rest + part).split("\\n\\n");
  rest = events.pop();
  for (const event of events) {
    if (!event.startsWith("data: ") || event === "data: [DONE]") continue;
    const data = JSON.parse(event.slice(6));
    if (data.error) throw new Error(JSON.stringify(data.error));
    process.stdout.write(${text});
  }
}
console.log();
`;
}

function isChat({ body }) {
  return "messages" in body;
}

function isForHub({ body }) {
  return Object.keys(body.parameters).every((name) => HUB.has(name));
}

function imports(hasKey) {
  return hasKey ? "import os\n\n" : "";
}

function shell(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

function keywords(values) {
  return Object.entries(values).map(([name, value]) => `    ${name}=${literal(value)},`).join("\n");
}

// A value in Python's words.
function literal(value) {
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  if (typeof value === "boolean") return value ? "True" : "False";
  if (value === null) return "None";
  if (typeof value !== "object" || JSON.isRawJSON?.(value)) return JSON.stringify(value);
  const items = Object.entries(value).map(([name, item]) => `${JSON.stringify(name)}: ${literal(item)}`);
  return `{${items.join(", ")}}`;
}

// Numbers that JavaScript cannot hold go as the text that was sent.
function javascriptBody(body) {
  const text = JSON.stringify(body, null, 2);
  const isExact = JSON.stringify(JSON.parse(text), null, 2) === text;
  return isExact ? `JSON.stringify(${text.replaceAll("\n", "\n  ")})` : JSON.stringify(JSON.stringify(body));
}

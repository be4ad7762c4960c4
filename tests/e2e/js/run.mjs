// Runs one case of one client: node run.mjs CLIENT CASE URL [WORDS]. Prints one line of JSON.
// Its exit code is 0 also when the client throws: what it threw is the answer.
const [client, name, url, words] = process.argv.slice(2);
const { cases } = await import(`./${client}.mjs`);

// Nobody but the server is to be asked.
const realFetch = globalThis.fetch;
globalThis.fetch = (target, options) => {
  const { origin } = new URL(target.url ?? target);
  if (origin !== new URL(url).origin) throw new Error(`it asked ${origin}`);
  return realFetch(target, options);
};

async function outcome() {
  try {
    return { value: await cases[name](url, words) };
  } catch (error) {
    return { error: describe(error) };
  }
}

function describe(error) {
  return {
    name: error.name,
    type: error.constructor.name,
    message: error.message,
    status: error.status ?? error.httpResponse?.status ?? null,
    body: error.httpResponse?.body ?? error.error ?? null,
  };
}

console.log(JSON.stringify(await outcome()));
if (client === "gradio") process.exit(); // its heartbeat has no end, not even by close()

// The endpoints of this server, as functions that answer with their outputs by name.

export const FACTS = JSON.parse(document.querySelector("#facts").textContent); // kinds, models, inputs and outputs, from the server

const plain = (html) => new DOMParser().parseFromString(html ?? "this did not work: try again", "text/html").body.textContent;

const json = (data) => new Blob([JSON.stringify(data)], { type: "application/json" });

const BROKEN = "the connection broke off: try again";

// The answer of this server; without one, or where it refuses, an error in one line.
export async function request(path, options) {
  const answer = await fetch(path, options).catch((error) => {
    throw error.name === "AbortError" ? error : new Error(BROKEN);
  });
  if (answer.ok) return answer;
  const { detail, error } = await answer.json().catch(() => ({}));
  throw new Error(typeof (detail ?? error) === "string" ? plain(detail ?? error) : `the server answers ${answer.status}: try again`);
}

const post = async (path, body, signal) => (await request(`gradio_api/${path}`, { method: "POST", body, signal })).json();

// Calls an endpoint with those of the values that it takes; `progress` gets each answer on the way. Aborting the signal stops the
// work on the server.
export async function call(name, values, { signal, progress } = {}) {
  const known = FACTS.inputs[name].map((key) => [key, values[key]]).filter(([, value]) => value != null);
  const named = (data) => Object.fromEntries(JSON.parse(data).map((value, i) => [FACTS.outputs[name][i], value]));
  const { event_id } = await post(`call/v2/${name}`, json(Object.fromEntries(known)), signal);
  const answers = new EventSource(`gradio_api/call/${name}/${event_id}`);
  try {
    return await new Promise((done, failed) => {
      signal?.addEventListener("abort", () => failed(signal.reason));
      answers.addEventListener("generating", ({ data }) => progress?.(named(data)));
      answers.addEventListener("complete", ({ data }) => done(named(data)));
      answers.onerror = ({ data }) => {
        const found = data && JSON.parse(data);
        failed(new Error(data ? plain(found?.error ?? found) : BROKEN));
      };
    });
  } finally {
    answers.close();
  }
}

// The next moment of Live: one request, without the queue.
export async function moment(values, signal) {
  const data = FACTS.inputs.live.map((name) => values[name] ?? null);
  return (await post("run/live", json({ data }), signal)).data[0];
}

export const there = (path) => ({ path, name: path.split("/").at(-1), meta: { _type: "gradio.FileData" } });

export async function upload(file) {
  if (file.size > FACTS.file_bytes) throw new Error(`${file.name} is too large: at most ${FACTS.file_bytes / 1e6} MB`);
  const form = new FormData();
  form.append("files", file, file.name);
  return there((await post("upload", form))[0]);
}

export const address = (path) => `gradio_api/file=${path}`;

// The endpoints of this server, as functions that answer with their outputs by name.

export const FACTS = JSON.parse(document.querySelector("#facts").textContent); // kinds, models, inputs and outputs, from the server

const post = (path, data, signal) =>
  fetch(`gradio_api/${path}`, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(data), signal });

async function checked(answer) {
  if (answer.ok) return answer;
  const { detail, error } = await answer.json().catch(() => ({}));
  throw new Error(typeof (detail ?? error) === "string" ? plain(detail ?? error) : `the server answers ${answer.status}: try again`);
}

const plain = (html) => new DOMParser().parseFromString(html ?? "this did not work: try again", "text/html").body.textContent;

const named = (name, outputs) => Object.fromEntries(FACTS.outputs[name].map((key, i) => [key, outputs[i]]));
const known = (name, values) => Object.fromEntries(FACTS.inputs[name].map((key) => [key, values[key]]).filter(([, value]) => value != null));

// Calls an endpoint with those of the values that it takes; `progress` gets each answer on the way. Aborting the signal stops the
// work on the server.
export async function call(name, values, { signal, progress } = {}) {
  const { event_id } = await (await checked(await post(`call/v2/${name}`, known(name, values), signal))).json();
  const answer = await checked(await fetch(`gradio_api/call/${name}/${event_id}`, { signal }));
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    buffer += value;
    for (let end; (end = buffer.indexOf("\n\n")) >= 0; buffer = buffer.slice(end + 2)) {
      const [, event, data] = buffer.slice(0, end).match(/^event: (\w+)\ndata: ([^]*)$/) ?? [];
      if (event === "error") throw new Error(plain(JSON.parse(data)?.error ?? JSON.parse(data)));
      if (event === "generating") progress?.(named(name, JSON.parse(data)));
      if (event === "complete") return named(name, JSON.parse(data));
    }
  }
  throw new Error("the connection broke off: try again");
}

// The next moment of Live: one request, without the queue.
export async function moment(values, signal) {
  const data = FACTS.inputs.live.map((name) => values[name] ?? null);
  return (await (await checked(await post("run/live", { data }, signal))).json()).data[0];
}

export async function upload(file) {
  const body = new FormData();
  body.append("files", file, file.name);
  const [path] = await (await checked(await fetch("gradio_api/upload", { method: "POST", body }))).json();
  return { path, meta: { _type: "gradio.FileData" } };
}

export const address = (path) => `gradio_api/file=${path}`;

// The page: prompts on one side, results on the other, and a way to draw for each mode.
import { FACTS, address, call, upload } from "./client.js";
import { start } from "./live.js";
import { painter } from "./mask.js";

const $ = (css, of = document) => of.querySelector(css);
const $$ = (css, of = document) => [...of.querySelectorAll(css)];
const KINDS = { text: "Words", audio: "Sound", video: "Video", image: "Picture", embeds: "Vector" };
const ACCEPT = { audio: "audio/*,video/webm,.flac,.m4a,.opus", image: "image/*", video: "video/*,image/gif,image/webp", open: "image/*" };
const DRAWS = { create: "Draw", edit: "Change it", live: "Start", travel: "Travel", film: "Make the film" };
const ask = $("#ask"), seed = $("#seed");
let mode = "create", parts = [], results = [], current = null, running = null, live = null, wanted = "audio";

const say = (words) => ($("#error").textContent = words);
const value = (name) => (ask.elements[name].value === "" ? null : Number(ask.elements[name].value));
const guarded = (work) => async (...given) => {
  say("");
  try {
    return await work(...given);
  } catch (error) {
    if (error.name !== "AbortError") say(error.message);
  }
};

// --- The prompt: rows of words and files, each with a weight once there are two

function add(part) {
  part = { weight: 1, value: "", ...part };
  part.row = $("#part").content.firstElementChild.cloneNode(true);
  const field = (css) => $(css, part.row), words = field(".words"), weight = field("input[type=range]");
  field(".kind").textContent = KINDS[part.kind] ?? part.kind;
  words.hidden = part.kind !== "text";
  field(".name").hidden = part.kind === "text";
  words.value = part.value;
  words.placeholder = parts.length ? "and" : "a red car";
  words.oninput = () => ((part.value = words.value), weigh());
  weight.value = part.weight;
  weight.oninput = () => (field("output").textContent = part.weight = Number(weight.value));
  weight.oninput();
  weight.setAttribute("aria-label", `Weight of ${KINDS[part.kind]} ${parts.length + 1}`);
  field(".remove").setAttribute("aria-label", `Remove ${KINDS[part.kind]} ${parts.length + 1}`);
  field(".remove").onclick = () => remove(part);
  parts.push(part);
  $("#parts").append(part.row);
  if (part.kind !== "text") describe(part);
  weigh();
  return part;
}

function describe(part) {
  $(".name", part.row).textContent = part.value;
  const heard = part.concepts?.map((c) => `${c.name} ${c.cosine.toFixed(2)}`).join(", ");
  $(".read", part.row).innerHTML = part.seen ?? "";
  if (heard) $(".read", part.row).prepend(Object.assign(document.createElement("p"), { className: "heard", textContent: `Understood as ${heard}` }));
  if (part.notes?.length) $(".read", part.row).prepend(noted(part.notes));
}

function noted(notes) {
  const list = Object.assign(document.createElement("ul"), { className: "notes" });
  list.setAttribute("role", "status");
  for (const n of notes) list.append(Object.assign(document.createElement("li"), { textContent: n.text }));
  return list;
}

function remove(part) {
  parts = parts.filter((p) => p !== part);
  part.row.remove();
  if (!parts.length) add({ kind: "text" });
  weigh();
  $(".words:not([hidden]), .remove", parts.at(-1).row)?.focus();
}

const weigh = () => $("#parts").classList.toggle("weighted", mode !== "travel" && parts.filter((p) => p.kind !== "text" || p.value.trim()).length > 1);
const given = (among = parts) =>
  among.filter((p) => !p.reading && (p.kind !== "text" || p.value.trim())).map(({ kind, value, weight, embedding }) =>
    embedding ? { kind, value, weight, embedding } : { kind, value: value.trim(), weight });

function fill(found, files = []) {
  for (const p of parts) p.row.remove();
  parts = [];
  for (const part of found) add({ ...part, file: files.find((f) => f.value === part.value)?.file });
  if (!parts.length) add({ kind: "text" });
}

// A file, or one that the server has, as one more part; a picture that was drawn here brings its settings back instead.
async function addFile(file, kind = "any", restoring = true) {
  const part = add({ kind: kind === "any" ? "image" : kind, value: file.name, reading: true });
  $(".read", part.row).textContent = "being read ...";
  try {
    const path = file.path ? file : await upload(file);
    const found = await call("read", { file: path, kind, video_sound: value("video_sound"), model: ask.elements.model.value });
    if (found.settings && restoring) {
      remove(part);
      const picture = { kind: "picture", path: path.path, label: file.name, parts: found.settings.kept, seed: found.settings.seed };
      restore(found.settings);
      return show(push(picture));
    }
    Object.assign(part, found.part, { weight: part.weight, concepts: found.concepts, notes: found.notes, seen: found.seen, file: path, reading: false });
    $(".kind", part.row).textContent = KINDS[part.kind];
    describe(part);
    weigh();
  } catch (error) {
    remove(part);
    throw error;
  }
}

function restore(settings) {
  fill(settings.kept);
  set({ ...settings, best_of: 1, pictures: 1 });
  $("#status").replaceChildren(Object.assign(document.createElement("p"), { className: "note", textContent: settings.said }));
}

function set(values) {
  for (const [name, v] of Object.entries(values)) {
    const field = ask.elements[name];
    if (!field) continue;
    field.value = v ?? "";
    field.dispatchEvent(new Event("input", { bubbles: true }));
  }
}

// --- Results: what was understood belongs to the one that is shown

function push(result) {
  result.button = document.createElement("button");
  result.button.type = "button";
  const thumb = Object.assign(document.createElement("img"), { alt: `${result.label}: ${result.parts?.map((p) => p.value).join(" + ") ?? "film"}`, src: result.thumb ?? address(result.path) });
  thumb.draggable = true;
  thumb.ondragstart = (event) => event.dataTransfer.setData("text/x-result", results.indexOf(result));
  result.button.append(thumb, result.label);
  result.button.onclick = guarded(() => (show(result), result.prompt?.()));
  $("#strip").append(Object.assign(document.createElement("li"), {}));
  $("#strip").lastElementChild.append(result.button);
  results.push(result);
  return result;
}

function show(result) {
  current = result;
  const film = result.kind === "film";
  for (const name of ["picture", "film"]) $(`#${name}`).hidden = (name === "film") !== film;
  $("#live").hidden = true;
  $("#empty").hidden = true;
  $("#film").pause();
  $(film ? "#film" : "#picture").src = result.src ?? address(result.path);
  $("#picture").alt = `Drawn from ${result.parts?.map((p) => p.value || p.kind).join(" + ") ?? "a file"}`;
  if (film) $("#film").play().catch(() => {});
  if (result.stage !== undefined) $("#status").innerHTML = result.stage;
  $("#understood").innerHTML = result.understood ?? "";
  $("#seen").innerHTML = result.seen ?? "";
  $("#shell").textContent = result.command ?? "";
  $("#python").textContent = result.python ?? "";
  $("#tools").hidden = false;
  $("#download").href = result.src ?? address(result.path);
  $("#download").download = result.name ?? result.path?.split("/").at(-1) ?? "live.webm";
  for (const name of ["seeds", "alike", "use", "change"]) $(`#${name}`).hidden = film;
  for (const r of results) r.button.setAttribute("aria-current", r === result);
  result.button.scrollIntoView({ block: "nearest", inline: "nearest" });
  if (mode === "edit") masking();
}

const pictures = (answer, more = {}) =>
  answer.pictures.map((p, i) => ({ ...more, kind: "picture", path: p.image.path, label: more.label ?? p.caption, seed: answer.details.seeds[i],
    parts: answer.details.kept, stage: "", understood: answer.understood, seen: answer.seen, command: answer.command, python: answer.python }));
const film = (path, answer, label) => ({ kind: "film", path, label, stage: answer.stage,
  thumb: new DOMParser().parseFromString(answer.stage, "text/html").querySelector("img")?.src });

// --- One runner for all that draws

async function run(name, values) {
  running?.abort();
  const mine = (running = new AbortController());
  $("#stop").hidden = false;
  $("#draw").setAttribute("aria-busy", "true");
  try {
    return await call(name, values, { signal: mine.signal, progress(answer) {
      if (!answer.stage || running !== mine) return;
      $("#status").innerHTML = answer.stage;
      const preview = $("#status .progress img");
      if (preview && mode !== "edit") {
        $("#picture").hidden = $("#empty").hidden = $("#film").hidden = false;
        $("#film").hidden = $("#empty").hidden = true;
        $("#picture").src = preview.src;
      }
    } });
  } catch (error) {
    if (current && running === mine) show(current);
    $("#status").innerHTML = error.name === "AbortError" ? '<p class="note">Stopped.</p>' : "";
    throw error;
  } finally {
    if (running === mine) {
      running = null;
      $("#stop").hidden = true;
      $("#draw").removeAttribute("aria-busy");
    }
  }
}

const numbers = () => ({ seed: value("seed") ?? 0, steps: value("steps"), guidance: value("guidance"), prior_strength: value("prior"), model: ask.elements.model.value });
const lead = () => parts.find((p) => p.kind === "audio" && p.file);

async function draw(more = {}) {
  const asked = { ...numbers(), kept: given(), mix: ask.elements.mix.value, pictures: value("pictures"), best_of: value("best_of"),
    size: value("size"), upscale: value("upscale"), prior_temperature: value("prior_temperature"), ...more };
  if (asked.pictures > 1) asked.best_of = 1;
  if (!asked.kept.length && !asked.image) throw new Error("nothing to draw: write something, or add a sound, a picture or a video");
  const made = pictures(await run("create", asked)).map(push);
  show(made[0]);
}

const RUN = {
  create: () => draw(),
  async edit() {
    if (current?.kind !== "picture") throw new Error("nothing to edit: draw or open a picture first");
    if (!given().length) throw new Error("say what it becomes: write something, or add a sound or a picture");
    const picture = current, mask = await mask_.file($("#picture"));
    const answer = await run("edit", { ...numbers(), picture: there(picture.path),
      mask: mask && (await upload(mask)), kept: given(), mix: ask.elements.mix.value, strength: value("strength"), prior_temperature: value("prior_temperature"), pictures: value("pictures") });
    mask_.clear();
    show(pictures(answer).map(push)[0]);
  },
  async travel() {
    const closed = ask.elements.closed.checked, mix = ask.elements.mix.value === "lerp" ? "lerp" : "slerp";
    const answer = await run("travel", { ...numbers(), kept: given(), between: value("between"), closed, mix });
    show(push(film(answer.exports[1].path, answer, "travel")));
  },
  async film() {
    const sound = lead();
    if (!sound) throw new Error("nothing to play: add a sound, or record one");
    const answer = await run("animate", { ...numbers(), sound: sound.file, kept: given(parts.filter((p) => p !== sound)), text_weight: value("share"),
      pictures: value("rate"), smooth: value("smooth") });
    show(push(film((answer.film.video ?? answer.film).path, answer, "film")));
  },
  async live() {
    if (live) return stopLive();
    const sound = lead();
    for (const name of ["picture", "film", "empty"]) $(`#${name}`).hidden = true;
    $("#live").hidden = false;
    $("#tools").hidden = true;
    live = await start($("#live"), sound && address(sound.file.path),
      () => ({ parts: given(parts.filter((p) => p !== sound)), share: value("share"), calm: value("calm"), seed: value("seed") ?? 0, model: ask.elements.model.value }),
      (heard) => {
        const words = heard.length ? `Heard: ${heard.join(", ")}` : "Silence: the picture stands still.";
        if ($("#status").textContent !== words) $("#status").textContent = words;
      }, say);
    window.liveStats = live.stats;
    $("#draw").textContent = "Stop and keep the film";
  },
};

async function stopLive() {
  const ended = live;
  live = null;
  $("#draw").textContent = DRAWS[mode];
  const blob = await ended?.stop();
  if (blob) {
    const thumb = $("#live").toDataURL("image/jpeg", 0.8);
    show(push({ kind: "film", src: URL.createObjectURL(blob), name: "live.webm", label: "live", thumb, stage: "" }));
  }
}

// --- Modes

function choose(name) {
  if (live && name !== "live") stopLive();
  mode = name;
  document.body.dataset.mode = name;
  for (const tab of $$("[role=tab]")) {
    const on = tab.dataset.mode === name;
    tab.setAttribute("aria-selected", on);
    tab.tabIndex = on ? 0 : -1;
  }
  $("#work").hidden = name === "explore";
  $("#explore").hidden = name !== "explore";
  $("#work").setAttribute("aria-labelledby", `tab-${name}`);
  for (const e of $$("[data-in]")) e.hidden = !e.dataset.in.split(" ").includes(name);
  if (DRAWS[name]) $("#draw").textContent = DRAWS[name];
  weigh();
  masking();
  if (name === "explore") guarded(explore)();
}

function masking() {
  mask_.clear();
  $("#mask").hidden = mode !== "edit" || current?.kind !== "picture";
}

async function explore() {
  const box = $("#explore");
  if (box.childElementCount) return;
  box.innerHTML = await (await fetch("page/explore")).text();
  box.addEventListener("click", (event) => {
    const word = event.target.closest("[data-draw]");
    if (!word) return;
    event.preventDefault();
    fill([{ kind: "text", value: word.dataset.draw }]);
    choose("create");
    guarded(RUN.create)();
  });
  $("#placing", box)?.addEventListener("submit", (event) => {
    event.preventDefault();
    guarded(async () => {
      const text = $("#place-text").value.trim(), found = await call("place", text ? { text } : { kept: given() });
      $("#map").innerHTML = found.map;
      $("#map-near").innerHTML = found.understood;
    })();
  });
}

// --- Events

const mask_ = painter($("#mask"), () => value("brush"));
for (const tab of $$("[role=tab]")) tab.onclick = () => choose(tab.dataset.mode);
$("[role=tablist]").addEventListener("keydown", (event) => {
  const tabs = $$("[role=tab]"), step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  const next = tabs[(tabs.findIndex((t) => t.tabIndex === 0) + step + tabs.length) % tabs.length];
  choose(next.dataset.mode);
  next.focus();
});
ask.addEventListener("submit", (event) => {
  event.preventDefault();
  guarded(RUN[mode])();
});
ask.addEventListener("input", ({ target }) => {
  const output = target.type === "range" && $(`output[for="${target.id}"]`);
  if (output) output.textContent = target.value;
});
ask.elements.model.onchange = () => set(FACTS.models[ask.elements.model.value]);
$("#stop").onclick = () => running?.abort();
$("#dice").onclick = () => set({ seed: Math.floor(Math.random() * 2 ** 31) });
for (const button of $$("[data-add]")) button.onclick = () => (button.dataset.add === "text" ? $(".words", add({ kind: "text" }).row).focus() : pick(button.dataset.add));
$("#open").onclick = () => pick("open");
$("#clear").onclick = () => mask_.clear();
function pick(kind) {
  wanted = kind;
  $("#file").accept = ACCEPT[kind];
  $("#file").click();
}
$("#file").onchange = guarded(async () => {
  const files = [...$("#file").files];
  $("#file").value = "";
  for (const file of files) await (wanted === "open" ? open(file) : addFile(file, kindOf(file, wanted), wanted === "image"));
});
const kindOf = (file, kind) => (kind === "image" && !file.type.startsWith("image/") ? "any" : kind);
async function open(file) {
  const path = await upload(file);
  show(push({ kind: "picture", path: path.path, label: file.name }));
}

let recorder = null;
$("#record").onclick = guarded(async () => {
  if (recorder) return recorder.stop();
  const stream = await navigator.mediaDevices.getUserMedia({ audio: true }), kept = [];
  recorder = new MediaRecorder(stream);
  recorder.ondataavailable = ({ data }) => kept.push(data);
  recorder.onstop = guarded(async () => {
    const kind = recorder.mimeType;
    recorder = null;
    $("#record").textContent = "● record";
    for (const track of stream.getTracks()) track.stop();
    await addFile(new File(kept, kind.includes("mp4") ? "recording.m4a" : "recording.webm", { type: kind }), "audio");
  });
  recorder.start();
  $("#record").textContent = "■ stop recording";
});

const there = (path) => ({ path, name: path.split("/").at(-1), meta: { _type: "gradio.FileData" } });
const use = guarded((result) => addFile(there(result.path), "image", false));
$("#use").onclick = () => use(current);
// pictures that differ: in what the prompt leaves open too, where the model has a prior
const varied = () => ({ pictures: 4, best_of: 1, prior_temperature: value("prior_temperature") ?? (FACTS.models[ask.elements.model.value].prior === null ? null : 1) });
$("#seeds").onclick = guarded(() => draw({ ...varied(), kept: current.parts ?? given(), seed: Math.max(...results.map((r) => r.seed ?? 0)) + 1 }));
$("#alike").onclick = guarded(() =>
  draw({ ...varied(), kept: current.parts ?? [], image: there(current.path), mix: "lerp", seed: Math.floor(Math.random() * 2 ** 31) }));
$("#change").onclick = () => choose("edit");
$("#status").addEventListener("click", ({ target }) => {
  const at = target.closest("[data-time]");
  if (!at) return;
  $("#film").pause();
  $("#film").currentTime = Number(at.dataset.time);
});
$("#film").ontimeupdate = () => {
  const marks = $$("#status [data-time]"), now = $("#film").currentTime + 0.01;
  for (const [i, mark] of marks.entries()) mark.setAttribute("aria-current", Number(mark.dataset.time) <= now && !(Number(marks[i + 1]?.dataset.time) <= now));
};

document.addEventListener("dragover", (event) => (event.preventDefault(), document.body.classList.add("dropping")));
document.addEventListener("dragleave", () => document.body.classList.remove("dropping"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  const index = event.dataTransfer.getData("text/x-result");
  if (index) use(results[index]);
  else guarded(async (files) => { for (const file of files) await (mode === "edit" ? open(file) : addFile(file)); })([...event.dataTransfer.files]);
});
document.addEventListener("paste", (event) => {
  const files = [...event.clipboardData.files];
  if (files.length) guarded(async () => { for (const file of files) await addFile(file); })();
});

// --- What the page opens on

async function opening(seen = 0) {
  const { answers, done } = await (await fetch("page/opening")).json();
  for (const answer of answers.slice(seen)) {
    const found = answer.film && film(answer.film, answer, answer.label), file = answer.sample && there(answer.sample);
    const made = found ?? pictures(answer, { label: answer.label })[0];
    const prompt = () => {
      choose(found ? "film" : "create");
      fill(found ? [] : made.parts, file ? [{ value: file.name, file }] : []);
      return found && addFile(file, "audio");
    };
    push({ ...made, prompt });
  }
  if (!current && results.length) show(results[0]);
  if (!done) setTimeout(() => opening(answers.length), 700);
}

add({ kind: "text" });
choose("create");
if (matchMedia("(min-width: 761px)").matches) $(".words").focus();
opening();

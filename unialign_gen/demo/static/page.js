// The page: prompts on one side, results on the other, and a way to draw for each mode.
import { FACTS, address, call, request, there, upload } from "./client.js";
import { microphone, recording, start } from "./live.js";
import { painter } from "./mask.js";

const $ = (css, of = document) => of.querySelector(css);
const $$ = (css, of = document) => [...of.querySelectorAll(css)];
const make = (tag, values) => Object.assign(document.createElement(tag), values);
const noted = (textContent) => make("p", { className: "note", textContent });
const DRAWS = { create: "Draw", edit: "Change it", live: "Start", travel: "Travel", film: "Make the film" };
const ask = $("#ask");
let results = [], current = null, running = null, live = null, recorder = null;

const mode = () => ask.elements.mode.value;
// What a screen reader says: a stage of the work when it begins, not its steps, and what came of it.
function speak(words) {
  const spoken = words.replace(/\s+/g, " ").trim();
  if ($("#spoken").textContent !== spoken) $("#spoken").textContent = spoken;
}
// In Explore beside its form, or in its place where it did not come: what belongs to the prompt is not seen there.
function say(words) {
  $(mode() === "explore" ? "#map-near, #explore:not(:has(*))" : "#error").textContent = words;
  if (mode() === "explore") speak(words); // the other is an alert by itself
}
const guarded = (work) => async (...given) => {
  say("");
  try {
    return await work(...given);
  } catch (error) {
    if (error.name !== "AbortError") say(error.message);
  }
};

// --- The form: fields have the names of the endpoints' parameters

function values(of = mode()) {
  const asked = (field) => field.name && field.closest("[data-in]")?.dataset.in.split(" ").includes(of);
  const read = ({ type, checked, value, valueAsNumber }) => (type === "checkbox" ? checked : value === "" ? null : valueAsNumber ?? value);
  return Object.fromEntries([...ask.elements].filter(asked).map((field) => [field.name, read(field)]));
}

// A slider stops at its steps and ends. A picture that Python drew may bring a number between or beyond them: it stays what it is.
function put(field, value) {
  if (typeof value === "number" && field.min) {
    field.step = field.dataset.step ??= field.step;
    Object.assign(field, { min: Math.min(field.min, value), max: Math.max(field.max, value), value });
    if (field.valueAsNumber !== value || field.validity.stepMismatch) field.step = "any";
  }
  if (field.type === "checkbox") field.checked = value;
  else field.value = value ?? "";
  if (field.selectedIndex < 0) field.selectedIndex = 0; // a model that is here no more
  field.dispatchEvent(new Event("input", { bubbles: true }));
}

function set(found) {
  for (const [name, value] of Object.entries(found)) if (ask.elements[name]) put(ask.elements[name], value);
}

// --- The prompt: rows of words and files, each with a weight once there are two. A row knows the rest of its part.

const rows = () => $$("#parts .part");
const weightOf = (row) => $("[type=range]", row).valueAsNumber; // seen wherever it counts
const given = (but) =>
  rows().filter((row) => row !== but && !row.prompt.reading).map((row) => {
    const { kind, value, embedding } = row.prompt, weight = mode() === "travel" ? 1 : weightOf(row);
    return { kind, value: (kind === "text" ? $(".words", row).value : value).trim(), weight, embedding };
  }).filter(({ kind, value }) => kind !== "text" || value);
const lead = () => rows().find(({ prompt }) => prompt.kind === "audio" && prompt.file);

function weigh() { // what leads has no weight
  const first = ["film", "live"].includes(mode()) && lead(), others = rows().filter((row) => row !== first);
  for (const row of rows()) row.classList.toggle("leads", row === first);
  const counts = mode() !== "travel" && (given(first).length > 1 || others.some((row) => weightOf(row) !== 1));
  $("#parts").classList.toggle("weighted", counts);
}

function add({ weight, ...prompt } = {}) {
  const row = $("#part").content.firstElementChild.cloneNode(true);
  row.prompt = { kind: "text", value: "", ...prompt }; // not `part`, which elements have of their own
  if (!rows().length) $(".words", row).placeholder = "a red car";
  $("#parts").append(row);
  describe(row);
  put($("[type=range]", row), weight ?? 1);
  return row;
}

function describe(row) {
  row.dataset.kind = row.prompt.kind;
  $(".kind", row).textContent = FACTS.kinds[row.prompt.kind] ?? row.prompt.kind;
  $(".name", row).textContent = $(".words", row).value = row.prompt.value.replace(/\s+/g, " "); // a field of one line drops breaks
  $(".read", row).innerHTML = row.prompt.reading ? "being read ..." : row.prompt.seen ?? "";
  weigh();
}

function remove(row) {
  row.remove();
  if (!rows().length) add();
  weigh();
}

// What a result, a word of the map or a button takes away can be had back: the rows of now and of before change places.
let before = [];
function keep() {
  if (!given().length) return;
  before = rows();
  $("#before").hidden = false;
}

function fill(found) {
  keep();
  $("#parts").replaceChildren();
  for (const part of found.length ? found : [{}]) add(part);
}

// A file, or one that the server has, as one more part; in Create a picture that was drawn here brings its settings back instead.
function addFile(file, kind = "any", restoring = true) {
  const row = add({ kind: kind === "any" ? "image" : kind, value: file.name, reading: true });
  return (row.prompt.reading = readInto(row, file, kind, restoring && mode() === "create"));
}

async function readInto(row, file, kind, restoring) {
  try {
    const path = file.path ? file : await upload(file);
    const { part, seen, settings } = await call("read", { ...values(), file: path, kind });
    if (settings && restoring) {
      row.remove();
      fill(settings.kept);
      set({ ...settings, pictures: 1 });
      const { kept: parts, seed, said } = settings;
      return show(push({ path: path.path, label: file.name, parts, seed, stage: noted(said).outerHTML }));
    }
    Object.assign(row.prompt, part, { seen, file: path, reading: false });
    describe(row);
    speak($(".read", row).textContent);
  } catch (error) {
    remove(row);
    throw error;
  }
}

// The path of a picture that is to be painted over.
async function opened(file) {
  const { path } = await upload(file);
  const picture = make("img", { src: address(path) });
  await picture.decode().catch(() => {
    throw new Error(`${file.name} is not a picture that this browser shows: give a PNG, JPEG or WebP`);
  });
  const { naturalWidth: width, naturalHeight: height } = picture, most = FACTS.pixels; // said before anything is painted
  if (width * height > most) {
    throw new Error(`${file.name} has ${width} x ${height} pixels: at most ${most / 1e6} megapixels are taken here`);
  }
  return path;
}

// Files of one kind; of those that were dropped or pasted the server finds it out, and Edit opens them.
const addFiles = guarded(async (files, kind = mode() === "edit" ? "open" : "any") => {
  const wrong = [];
  for (const file of files) {
    const shows = file.type.startsWith("image/"), sort = kind === "open" || (kind === "image" && !shows) ? "any" : kind;
    try {
      if (kind === "open" && shows) show(push({ path: await opened(file), label: file.name }));
      else await addFile(file, sort, files.length === 1 && (kind === "image" || kind === "any"));
    } catch (error) {
      wrong.push(error.message); // of one; the others are added
    }
  }
  if (wrong.length) throw new Error(wrong.join("; "));
});

// --- Results: what was understood belongs to the one that is shown

const title = (result) => result.parts?.map((p) => p.value || p.kind).join(" + ") ?? result.label;

function push(result) {
  result.url ??= address(result.path);
  const thumb = make("img", { alt: `${result.label}: ${title(result)}`, src: result.thumb ?? result.url, draggable: true });
  thumb.ondragstart = (event) => event.dataTransfer.setData("text/x-result", results.indexOf(result));
  result.button = make("button", { type: "button", title: title(result), onclick: guarded(() => choice(result)) });
  result.button.append(thumb, result.label);
  const item = make("li");
  item.append(result.button);
  $("#strip").append(item);
  results.push(result);
  return result;
}

async function choice(result) {
  if (live) await stopLive();
  show(result);
  return result.prompt?.();
}

const see = (id) => ["picture", "film", "live", "empty"].forEach((other) => ($(`#${other}`).hidden = other !== id));

function show(result) {
  if (result !== current) paint.clear(); // what was painted is of the other
  current = result;
  see(result.film ? "film" : "picture");
  $("#film").pause();
  $(result.film ? "#film" : "#picture").src = result.url;
  $("#picture").alt = `Drawn from ${title(result)}`;
  if (result.film) $("#film").play().catch(() => {});
  $("#status").innerHTML = result.stage ?? "";
  for (const id of ["understood", "seen"]) $(`#${id}`).innerHTML = result[id] ?? "";
  $("#told").replaceChildren(...document.querySelectorAll("#understood .notes")); // beside the picture, also on a small window
  for (const id of ["command", "python"]) $(`#${id}`).textContent = result[id] ?? "";
  $("#tools").hidden = false;
  for (const button of $$("#tools button")) button.hidden = result.film; // they are for pictures
  Object.assign($("#download"), { href: result.url, download: result.name ?? result.path.split("/").at(-1) });
  for (const other of results) other.button.setAttribute("aria-current", other === result);
  const strip = $("#strip"); // not scrollIntoView, which would move the page too
  strip.scrollLeft = result.button.offsetLeft - (strip.clientWidth - result.button.offsetWidth) / 2;
  masking();
  speak([$("#picture").alt, ...$$("#show :is(.note, .notes)").map((e) => e.textContent)].join(". "));
}

const pictures = ({ pictures, details, ...rest }, label) =>
  pictures.map(({ image, caption }, i) => ({ ...rest, path: image.path, label: label ?? caption, seed: details.seeds[i], parts: details.kept }));
const film = ({ film, stage }, label) => ({ film: true, path: film.path, label, stage, thumb: new DOMParser().parseFromString(stage, "text/html").querySelector("img")?.src });
const shown = (found) => show(found.map(push)[0]);

// --- One runner for all that draws

async function run(name, more) {
  running?.abort();
  const mine = (running = new AbortController());
  const progress = ({ stage }) => {
    if (!stage || running !== mine) return;
    $("#status").innerHTML = stage;
    speak($("#status p").textContent);
    const preview = $("#status .progress img");
    if (preview && mode() !== "edit") {
      see("picture");
      Object.assign($("#picture"), { src: preview.src, alt: "Preview" });
      $("#told").replaceChildren(); // was of the picture before
    }
  };
  $("#draw").setAttribute("aria-busy", "true");
  try {
    return await call(name, { kept: given(), ...values(name === "animate" ? "film" : name), ...more }, { signal: mine.signal, progress });
  } catch (error) {
    if (running === mine) {
      $("#status").replaceChildren();
      if (current) show(current);
      if (error.name === "AbortError") {
        $("#status").prepend(noted("Stopped."));
        speak("Stopped.");
      }
    }
    throw error;
  } finally {
    if (running === mine) {
      running = null;
      $("#draw").removeAttribute("aria-busy");
    }
  }
}

const RUN = {
  async create(more = {}) {
    if (!given().length && !more.kept) throw new Error("nothing to draw: write something, or add a sound, a picture or a video");
    shown(pictures(await run("create", more)));
  },
  async edit(asked) {
    if (!asked) {
      if (!current || current.film) throw new Error("nothing to edit: draw or open a picture first");
      if (!given().length) throw new Error("say what it becomes: write something, or add a sound or a picture");
      const mask = await paint.file($("#picture"));
      asked = { picture: there(current.path), mask: mask && (await upload(mask)), strength: values().strength };
    }
    shown(pictures(await run("edit", asked)).map((result) => ({ ...result, edit: asked })));
  },
  travel: async () => shown([film(await run("travel"), "travel")]),
  async film() {
    const sound = lead(), { share, rate } = values();
    const meant = given().some(({ kind }) => kind === "audio"); // by the settings of a picture, which hold no sound
    if (!sound) throw new Error(`nothing to play: add ${meant ? "the sound itself" : "a sound, or record one"}`);
    const asked = { sound: sound.prompt.file, kept: given(sound), text_weight: share, pictures: rate };
    shown([film(await run("animate", asked), "film")]);
  },
  async live() {
    if (live) return stopLive();
    const sound = lead();
    running?.abort();
    running = null; // what it drew would lie over what is heard
    $("#draw").removeAttribute("aria-busy");
    see("live");
    $("#tools").hidden = true;
    $("#told").replaceChildren(); // was of the picture before
    const heard = (names) => {
      $("#status").textContent = names.length ? `Heard: ${names.join(", ")}` : "Silence: the picture stands still.";
    };
    const begun = (live = start($("#live"), sound && address(sound.prompt.file.path), () => ({ ...values(), parts: given(sound) }), heard, say));
    try {
      window.liveStats = (await begun).stats;
      if (live === begun) $("#draw").textContent = "Stop and keep the film";
    } catch (error) {
      if (live === begun) live = null;
      if (current) show(current);
      throw error;
    }
  },
};

async function stopLive() {
  const ended = live;
  live = null;
  $("#draw").textContent = DRAWS[mode()];
  const blob = await (await ended.catch(() => null))?.stop(); // it may not have begun
  const thumb = $("#live").toDataURL("image/jpeg", 0.8);
  if (blob) show(push({ film: true, url: URL.createObjectURL(blob), name: "live.webm", label: "live", thumb }));
  else if (current) show(current);
}

// --- Modes

function choose(name) {
  ask.elements.mode.value = name;
  if (live && name !== "live") stopLive();
  $("#error").textContent = ""; // was of the mode before
  for (const e of $$("[data-in]")) {
    e.hidden = !e.dataset.in.split(" ").includes(name);
    for (const field of $$("input[name]", e)) field.disabled = e.hidden; // a wrong number that nobody sees would stop all
  }
  $("#draw").textContent = DRAWS[name] ?? "";
  weigh();
  masking();
  if (name === "explore") guarded(explore)();
}

function masking() {
  $("#mask").hidden = mode() !== "edit" || !current || Boolean(current.film);
}

async function explore() {
  const box = $("#explore");
  if (box.childElementCount) return;
  box.innerHTML = await (await request("page/explore")).text();
  box.onclick = (event) => {
    const word = event.target.closest("[data-draw]");
    if (!word) return;
    event.preventDefault();
    fill([{ value: word.dataset.draw }]);
    choose("create");
    guarded(RUN.create)();
  };
  box.onsubmit = guarded(async (event) => {
    event.preventDefault();
    const text = $("#place-text").value.trim(), found = await call("place", text ? { text } : { kept: given() });
    $("#map").innerHTML = found.map;
    $("#map-near").innerHTML = found.understood;
    speak($("#map-near").textContent);
    $("#map circle").scrollIntoView({ block: "center", inline: "center" });
  });
}

// --- Events

const paint = painter($("#mask"), () => values().brush);
$("#tabs").onchange = ({ target }) => choose(target.value);
$("#parts").onclick = ({ target }) => {
  if (!target.matches(".remove")) return;
  keep();
  remove(target.closest(".part"));
  $("[data-kind=text] .words, .remove", $("#parts").lastElementChild).focus();
};
ask.onsubmit = guarded(async (event) => {
  event.preventDefault();
  if (recorder) await record(); // the recording that is under way
  await Promise.all(rows().map((row) => row.prompt.reading)); // what was added counts
  await RUN[mode()]();
});
ask.addEventListener("invalid", ({ target }) => {
  $("#settings").open = true; // of a field that is not in view the browser says nothing, and does not draw
  say(`${target.labels[0].firstChild.textContent}: ${target.validationMessage}`);
}, true);
ask.oninput = ({ target }) => {
  if (target.type === "range") $("output", target.parentElement).textContent = target.value;
  weigh();
};
ask.elements.model.onchange = () => set(FACTS.models[values().model]);
$("#stop").onclick = () => running?.abort();
const another = () => Math.floor(Math.random() * 2 ** 31);
$("#dice").onclick = () => set({ seed: another() });
$("#before").onclick = () => {
  const now = rows();
  $("#parts").replaceChildren(...before);
  before = now;
  weigh();
};
$("#words").onclick = () => $(".words", add()).focus();
for (const chooser of $$("[type=file]")) chooser.onchange = () => {
  addFiles([...chooser.files], chooser.dataset.add);
  chooser.value = "";
};
$("#undo").onclick = () => paint.undo();
$("#clear").onclick = () => paint.clear();
let taken = null; // the recording as a part, once it is one
const record = () => {
  if (!recorder) return (taken = take());
  recorder.stop();
  return taken;
};
const take = guarded(async () => {
  $("#record").disabled = true; // while the browser asks: a second recording would never end
  const stream = await microphone().finally(() => ($("#record").disabled = false));
  const { recorder: made, recorded } = recording(stream);
  recorder = made;
  recorder.start();
  $("#record").textContent = "■ stop recording";
  const sound = await recorded;
  recorder = null;
  $("#record").textContent = "● record";
  for (const track of stream.getTracks()) track.stop();
  const name = sound.type.includes("mp4") ? "recording.m4a" : "recording.webm";
  await addFiles([new File([sound], name, { type: sound.type })], "audio");
});
$("#record").onclick = record;

const use = guarded((result) => addFile(there(result.path), "image", false));
$("#use").onclick = () => use(current);
// pictures that differ: in what the prompt leaves open too, where the model has a prior
function varied() {
  const { prior_temperature, model } = values("create");
  return { pictures: 4, prior_temperature: prior_temperature ?? (FACTS.models[model].prior_strength === null ? null : 1) };
}
$("#seeds").onclick = guarded(() => {
  const seed = Math.max(...results.map((r) => r.seed ?? 0)) + 1;
  const more = { ...current.edit, ...varied(), kept: current.parts ?? given(), seed };
  return current.edit ? RUN.edit(more) : RUN.create(more); // an edit is made again, of the same picture
});
$("#alike").onclick = guarded(() => RUN.create({ ...varied(), kept: current.parts ?? [], image: there(current.path), mix: "lerp", seed: another() }));
$("#change").onclick = () => choose("edit");
$("#status").onclick = ({ target }) => {
  const at = target.closest("[data-time]");
  if (!at) return;
  $("#film").pause();
  $("#film").currentTime = Number(at.dataset.time);
};
$("#film").ontimeupdate = () => {
  const marks = $$("#status [data-time]"), now = $("#film").currentTime + 0.01;
  const last = marks.findLast((mark) => Number(mark.dataset.time) <= now);
  for (const mark of marks) mark.setAttribute("aria-current", mark === last);
};

// Words are not the page's: the field that they are dropped on takes them.
const ours = ({ dataTransfer: { types } }) => types.includes("Files") || types.includes("text/x-result");
document.ondragover = (event) => {
  if (!ours(event)) return;
  event.preventDefault();
  document.body.classList.add("dropping");
};
document.ondragleave = () => document.body.classList.remove("dropping");
document.ondrop = (event) => {
  if (!ours(event)) return;
  event.preventDefault();
  document.body.classList.remove("dropping");
  const index = event.dataTransfer.getData("text/x-result");
  if (index) use(results[index]);
  else addFiles([...event.dataTransfer.files]);
};
document.onpaste = (event) => addFiles([...event.clipboardData.files]);

// --- What the page opens on: after a reload what this tab held, as far as its files are still on the server

document.onvisibilitychange = () => {
  if (!document.hidden) return;
  const parts = rows().filter(({ prompt }) => !prompt.reading).map((row) => {
    const { kind, value } = row.prompt;
    return { ...row.prompt, value: kind === "text" ? $(".words", row).value : value, weight: weightOf(row) };
  });
  const own = results.filter(({ path, prompt }) => path && !prompt).map(({ button, ...result }) => result);
  const all = { mode: mode(), parts, settings: Object.assign({}, ...Object.keys(DRAWS).map(values)), shown: current?.path };
  for (const last of [own, own.slice(-12), []]) {
    try {
      return sessionStorage.setItem("kept", JSON.stringify({ ...all, own: last }));
    } catch {} // a browser keeps some megabytes
  }
};

function held() {
  try {
    return JSON.parse(sessionStorage.getItem("kept")) ?? {};
  } catch {
    return {}; // a browser that was told to keep nothing
  }
}

async function recall() { // once, however often the opening is asked for
  const own = kept.own?.splice(0) ?? [];
  const found = own.map(({ url }) => fetch(url, { method: "HEAD" }).then(({ ok }) => ok, () => false));
  for (const [i, ok] of (await Promise.all(found)).entries()) if (ok) push(own[i]);
}

const lost = (error) => say(error.message);

async function opening(seen = 0) {
  const { answers, done } = await (await request("page/opening")).json();
  for (const answer of answers.slice(seen)) {
    const made = answer.film ? film(answer, answer.label) : pictures(answer, answer.label)[0];
    const file = answer.sample && there(answer.sample);
    push(made).prompt = () => {
      choose(made.film ? "film" : "create");
      fill(made.film ? [] : made.parts.map((part) => ({ ...part, file: part.value === file?.name && file })));
      if (made.film) return addFile(file, "audio");
    };
  }
  await recall();
  if (!current && results.length) show(results.find(({ path }) => path === kept.shown) ?? results[0]);
  if (!done) setTimeout(() => opening(answers.length).catch(lost), 700);
}

const kept = held();
fill(kept.parts ?? []);
set(kept.settings ?? {});
choose(kept.mode ?? "create");
if (matchMedia("(min-width: 761px)").matches) $(".words").focus({ preventScroll: true });
opening().catch(lost);

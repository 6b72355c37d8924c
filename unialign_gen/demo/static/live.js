// Live: what is heard leads the picture. The last seconds of sound go to the server, its next pictures fade into each other.
import { moment } from "./client.js";

const RATE = 16000, SECONDS = 2.3, FIRST = 0.12, PICTURES = 2, FPS = 15;
const SOONEST = 120; // milliseconds from call to call: an address has so many a minute
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

// A recorder of a stream, and what it has recorded once it is stopped.
export function recording(stream, options) {
  const recorder = new MediaRecorder(stream, options), kept = [];
  recorder.ondataavailable = ({ data }) => kept.push(data);
  const recorded = new Promise((done) => (recorder.onstop = () => done(new Blob(kept, { type: recorder.mimeType }))));
  return { recorder, recorded };
}

const SECURE = "the browser allows this on pages over https, and of this machine, only";

export async function microphone(audio = true) {
  if (!navigator.mediaDevices) throw new Error(`no microphone: ${SECURE}`);
  try {
    return await navigator.mediaDevices.getUserMedia({ audio });
  } catch (error) {
    const refused = "the browser was told to refuse the microphone: allow it in its settings for this page";
    throw new Error(error.name === "NotAllowedError" ? refused : "no microphone was found that can be heard");
  }
}

// The last seconds of a source, as base64 of 16-bit samples at RATE.
class Ear {
  constructor(rate) {
    this.step = rate / RATE;
    this.ring = new Float32Array(Math.ceil(SECONDS * rate));
    this.heard = 0;
  }
  add(block) {
    for (const sample of block) this.ring[this.heard++ % this.ring.length] = sample;
  }
  samples() {
    const length = Math.min(this.heard, this.ring.length), out = new Int16Array(length / this.step);
    const at = (i) => this.ring[(this.heard - length + Math.floor(i * this.step)) % this.ring.length];
    for (let i = 0; i < out.length; i++) out[i] = Math.max(-1, Math.min(1, at(i))) * 32767;
    return btoa(Array.from(new Uint8Array(out.buffer), (byte) => String.fromCharCode(byte)).join(""));
  }
}

// Starts; `options()` gives the form's values and the parts that stay, at any time. Resolves to { stop, stats }; stop gives the film.
export async function start(canvas, sound, options, say, failed) {
  if (!isSecureContext) throw new Error(`no Live: ${SECURE}`);
  const started = performance.now(), context = new AudioContext(), ear = new Ear(context.sampleRate), abort = new AbortController();
  const player = sound && Object.assign(new Audio(sound), { loop: true });
  let stream = null, source = null;
  const silence = () => {
    player?.pause();
    for (const track of stream?.getTracks() ?? []) track.stop();
    return context.close();
  };
  try {
    stream = sound ? null : await microphone({ echoCancellation: false, noiseSuppression: false });
    source = sound ? context.createMediaElementSource(player) : context.createMediaStreamSource(stream);
    if (sound) source.connect(context.destination);
    await context.audioWorklet.addModule("page/worklet.js");
    const low = new BiquadFilterNode(context, { type: "lowpass", frequency: 7500 }), tap = new AudioWorkletNode(context, "tap");
    tap.port.onmessage = ({ data }) => ear.add(data);
    source.connect(low).connect(tap).connect(context.destination); // the tap is silent; unconnected it would not run
    await player?.play().catch(() => {
      throw new Error("this browser cannot play the sound: add it again, or as WAV, MP3 or M4A");
    });
  } catch (error) {
    await silence();
    throw error;
  }

  const paint = canvas.getContext("2d"), waiting = [];
  let shown = null, since = 0, gap = 200;
  const stats = { first: 0, pictures: 0, failures: 0, dropped: 0, longest: 0 };
  const tick = () => {
    const pace = waiting.length > PICTURES ? 0.5 : 0.9; // behind: catch up rather than drop
    if (waiting.length && performance.now() - since > gap * pace) {
      const now = performance.now();
      if (shown) stats.longest = Math.max(stats.longest, now - since);
      else stats.first = now - started;
      [shown, since] = [waiting.shift(), now];
      stats.pictures++;
    }
    if (!shown) return;
    paint.globalAlpha = stats.pictures < 2 ? 1 : Math.min(1, 1000 / FPS / gap + 0.15);
    paint.drawImage(shown, 0, 0, canvas.width, canvas.height);
  };
  const clock = setInterval(tick, 1000 / FPS);

  const out = context.createMediaStreamDestination();
  source.connect(out);
  const film = new MediaStream([...canvas.captureStream(FPS).getVideoTracks(), ...out.stream.getAudioTracks()]);
  const { recorder, recorded } = recording(film, { mimeType: "video/webm", videoBitsPerSecond: 800_000 });

  async function follow() {
    let previous = "", lost = "", base = null, parts = null, then = performance.now();
    while (!abort.signal.aborted) {
      if (ear.heard < FIRST * context.sampleRate) {
        await pause(20);
        continue;
      }
      const now = performance.now(), { share, calm, seed, model, prior_strength, parts: stay } = options();
      const asked = JSON.stringify([stay, model, prior_strength]);
      if (asked !== parts) [parts, base] = [asked, null];
      const elapsed = Math.min((now - then) / 1000, 60);
      then = now;
      try {
        const values = { samples: ear.samples(), previous, pictures: PICTURES, elapsed, kept: base ?? stay, share, smooth: calm, seed: seed ?? 0 };
        const found = await moment({ ...values, model, prior_strength }, abort.signal);
        previous = found.point;
        if (found.base.length) base = found.base;
        const images = await Promise.all(found.pictures.map(async (src) => {
          const image = Object.assign(new Image(), { src });
          await image.decode();
          return image;
        }));
        waiting.push(...images);
        if (!shown) tick();
        if (images.length) gap = 0.7 * gap + 0.3 * ((performance.now() - now) / images.length);
        for (; waiting.length > 2 * PICTURES; stats.dropped++) waiting.shift();
        if (recorder.state === "inactive" && images.length) recorder.start(2000);
        if (lost) failed((lost = ""));
        say(found.heard);
        await pause(SOONEST - (performance.now() - now));
      } catch (error) {
        if (abort.signal.aborted) return;
        stats.failures++;
        failed((lost = error.message));
        await pause(500);
      }
    }
  }
  follow();

  return {
    stats,
    async stop() {
      abort.abort();
      clearInterval(clock);
      const drawn = recorder.state !== "inactive";
      if (drawn) recorder.stop();
      const kept = drawn ? await recorded : null;
      for (const track of film.getTracks()) track.stop();
      await silence();
      return kept;
    },
  };
}

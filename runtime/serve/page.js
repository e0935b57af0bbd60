// The page at /: a sound is recorded or chosen, turned into WAV here and asked about.
"use strict";

const RATE = 16000; // Hz, the model's own
const part = (id) => document.getElementById(id);
let sound = null; // base64 of a WAV
let recorder = null;
let request = null; // AbortController of the request that runs

function show(error) {
  part("error").textContent = error ? error.message || String(error) : "";
}

function headers() {
  const key = part("key").value;
  return key ? { authorization: `Bearer ${key}` } : {};
}

async function listLevels() {
  const answer = await fetch("/v1/models", { headers: headers() });
  part("key-line").hidden = answer.status !== 401 && !part("key").value;
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.error.message);
  const names = body.data.map((model) => model.id);
  const options = names.map((name) => new Option(name.split(":")[1] || "as the server is set", name));
  part("level").replaceChildren(...options);
}

// Whatever the browser can play becomes mono samples at the model's rate.
async function readSound(blob) {
  const context = new AudioContext();
  const played = await context.decodeAudioData(await blob.arrayBuffer());
  await context.close();
  const offline = new OfflineAudioContext(1, Math.ceil(played.duration * RATE), RATE);
  const source = offline.createBufferSource();
  source.buffer = played;
  source.connect(offline.destination);
  source.start();
  return (await offline.startRendering()).getChannelData(0);
}

function wavOf(samples) {
  const bytes = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const text = (at, word) => {
    for (let index = 0; index < word.length; index++) bytes.setUint8(at + index, word.charCodeAt(index));
  };
  text(0, "RIFF");
  bytes.setUint32(4, 36 + 2 * samples.length, true);
  text(8, "WAVEfmt ");
  bytes.setUint32(16, 16, true);
  bytes.setUint16(20, 1, true); // PCM
  bytes.setUint16(22, 1, true); // mono
  bytes.setUint32(24, RATE, true);
  bytes.setUint32(28, 2 * RATE, true);
  bytes.setUint16(32, 2, true);
  bytes.setUint16(34, 16, true);
  text(36, "data");
  bytes.setUint32(40, 2 * samples.length, true);
  samples.forEach((sample, index) => {
    bytes.setInt16(44 + 2 * index, Math.max(-1, Math.min(1, sample)) * 32767, true);
  });
  return bytes.buffer;
}

function base64Of(buffer) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.split(",")[1]);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(new Blob([buffer]));
  });
}

async function take(blob) {
  show();
  try {
    const wav = wavOf(await readSound(blob));
    sound = await base64Of(wav);
    part("player").src = URL.createObjectURL(new Blob([wav], { type: "audio/wav" }));
    part("player").hidden = false;
    part("ask").disabled = false;
  } catch (error) {
    show(new Error(`this sound cannot be read (${error.message})`));
  }
}

async function startRecording(event) {
  event.preventDefault();
  if (!navigator.mediaDevices) {
    show(new Error("a browser records on https:// or localhost only; choose a file"));
    return;
  }
  try {
    const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
    const pieces = [];
    recorder = new MediaRecorder(stream);
    recorder.ondataavailable = (piece) => pieces.push(piece.data);
    recorder.onstop = () => {
      stream.getTracks().forEach((track) => track.stop());
      take(new Blob(pieces));
    };
    recorder.start();
    part("record").classList.add("on");
  } catch (error) {
    show(error);
  }
}

function stopRecording() {
  part("record").classList.remove("on");
  if (recorder && recorder.state === "recording") recorder.stop();
}

function question() {
  const content = [
    { type: "input_audio", input_audio: { data: sound, format: "wav" } },
    { type: "text", text: part("question").value },
  ];
  return {
    model: part("level").value,
    messages: [{ role: "user", content }],
    stream: true,
    stream_options: { include_usage: true },
  };
}

async function ask() {
  show();
  part("answer").textContent = part("figures").textContent = "";
  request = new AbortController();
  part("ask").disabled = true;
  part("stop").disabled = false;
  try {
    const answer = await fetch("/v1/chat/completions", {
      method: "POST",
      headers: { "content-type": "application/json", ...headers() },
      body: JSON.stringify(question()),
      signal: request.signal,
    });
    if (!answer.ok) throw new Error((await answer.json()).error.message);
    for await (const event of eventsOf(answer.body)) showEvent(event);
  } catch (error) {
    if (error.name !== "AbortError") show(error);
  } finally {
    part("ask").disabled = false;
    part("stop").disabled = true;
  }
}

async function* eventsOf(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (held + value).split("\n\n");
    held = lines.pop();
    for (const line of lines) {
      const data = line.replace(/^data: /, "");
      if (data !== "[DONE]") yield JSON.parse(data);
    }
  }
}

function showEvent(event) {
  if (event.error) throw new Error(event.error.message);
  const choice = event.choices[0];
  if (choice) part("answer").textContent += choice.delta.content || "";
  if (event.ltbm) showFigures(event.ltbm);
}

function showFigures(figures) {
  const times = figures.timings;
  part("figures").textContent =
    `${figures.level}: ${figures.audio_tokens_in} audio tokens, ${figures.audio_tokens_out} read` +
    `${figures.applied ? "" : ` (${figures.reason})`}; ${figures.reused_tokens} prompt tokens reused; ` +
    `first token after ${times.ttft.toFixed(0)} ms, whole answer ${times.total.toFixed(0)} ms`;
}

part("record").addEventListener("pointerdown", startRecording);
for (const end of ["pointerup", "pointerleave", "pointercancel"]) {
  part("record").addEventListener(end, stopRecording);
}
part("file").addEventListener("change", (event) => event.target.files[0] && take(event.target.files[0]));
part("key").addEventListener("change", () => listLevels().then(() => show(), show));
part("ask").addEventListener("click", ask);
part("stop").addEventListener("click", () => request.abort());
for (const name of ["dragover", "dragleave", "drop"]) {
  part("drop").addEventListener(name, (event) => {
    event.preventDefault();
    part("drop").classList.toggle("over", name === "dragover");
    if (name === "drop" && event.dataTransfer.files[0]) take(event.dataTransfer.files[0]);
  });
}
listLevels().catch(show);
